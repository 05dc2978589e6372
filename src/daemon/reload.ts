/**
 * SIGHUP: read the policy and the certificates again, and open the audit file anew. What is wrong with a file is said in the log,
 * and what was in force stays; what was right in the other file is taken all the same.
 */
import type { Api } from '../api/api.ts'
import { notify } from '../os/notify.ts'
import type { Config } from './config.ts'
import { ConfigError } from './config-error.ts'
import type { Logging } from './logging.ts'
import type { PolicyStore } from './policy-file.ts'
import { certificatesOf } from './remote-options.ts'

/**
 * Handles SIGHUP from before the daemon is ready, because the signal ends a process that does not
 * handle it. An early request is served once the daemon is ready.
 */
export const onReload = (ready: Promise<() => void>): void => {
  process.on('SIGHUP', () => void ready.then((reloadNow) => reloadNow()))
}

export const reload = (parts: {
  readonly config: Config
  readonly policy: PolicyStore
  readonly api: Api
  readonly logging: Logging
}): void => {
  const { config, policy, api, logging } = parts
  const { logger: log } = logging
  logging.reopen()
  const wrong = [policy.reload(), reloadCertificates(config, api)].filter(
    (each) => each !== undefined,
  )
  if (wrong.length === 0) log.info({ audit: true, policy: policy.status }, 'reloaded')
  for (const refusal of wrong)
    log.error({ audit: true, refusal }, 'not reloaded: what was in force stays')
  const [first] = wrong
  // One line: systemctl shows no more.
  const status = first?.split('\n', 1)[0] ?? `serving ${config.socket}`
  notify(`STATUS=${first === undefined ? status : `serving, not reloaded: ${status}`}`)
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
