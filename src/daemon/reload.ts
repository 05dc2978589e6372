/**
 * SIGHUP: read the policy and the certificates again. What is wrong with a file is said in the log,
 * and what was in force stays; what was right in the other file is taken all the same.
 */
import type { Api } from '../api/api.ts'
import type { Log } from '../api/log.ts'
import { notify } from '../os/notify.ts'
import type { Config } from './config.ts'
import { ConfigError } from './config-error.ts'
import type { PolicyStore } from './policy-file.ts'
import { certificatesOf } from './remote-options.ts'

export const onReload = (reloadNow: () => void): void => {
  process.on('SIGHUP', reloadNow)
}

export const reload = (parts: {
  readonly config: Config
  readonly policy: PolicyStore
  readonly api: Api
  readonly log: Log
}): void => {
  const { config, policy, api, log } = parts
  const wrong = policy.reload() ?? reloadCertificates(config, api)
  if (wrong === undefined) log.info({ audit: true, policy: policy.status }, 'reloaded')
  else log.error({ audit: true, refusal: wrong }, 'not reloaded: what was in force stays')
  notify(`STATUS=${wrong === undefined ? `serving ${config.socket}` : 'serving; not reloaded'}`)
}

function reloadCertificates(config: Config, api: Api): string | undefined {
  if (config.listen === undefined) return undefined
  try {
    api.setCertificates(certificatesOf(config))
    return undefined
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.message
  }
}
