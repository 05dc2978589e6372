/**
 * The policy file: TOML, checked before it is taken. docs/policy.md describes every key and is held
 * equal to this. A file that is wrong is never half taken: the policy before it stays in force.
 */

import { parse, stringify } from 'smol-toml'
import { z } from 'zod'
import { canonicalEntry } from '../rules/device-name.ts'
import {
  DEFAULT_RELEASE_ASKED_MS,
  defaultPolicy,
  type Grant,
  grantOf,
  type Identity,
  type Policy,
  QUOTAS,
  type Quota,
  ROLES,
  type Rule,
} from '../rules/policy.ts'
import { ConfigError } from './config-error.ts'
import {
  groupNumber,
  ownerOfUid,
  type SubordinateUids,
  subordinateUids,
  userNumber,
} from './names.ts'
import { readTrusted } from './trusted-file.ts'

const quotaSchema = z
  .strictObject(
    Object.fromEntries(QUOTAS.map((name) => [name, z.int().min(0).optional()])) as Record<
      (typeof QUOTAS)[number],
      z.ZodOptional<z.ZodInt>
    >,
  )
  .default({})

export const ruleSchema = z
  .strictObject({
    user: z
      .union([z.string(), z.int().min(0)])
      .optional()
      .describe('A local user, by name or uid.'),
    group: z
      .union([z.string(), z.int().min(0)])
      .optional()
      .describe('A local group, primary or supplementary, by name or gid.'),
    remote: z
      .string()
      .min(1)
      .optional()
      .describe('The name in the certificate of a client on another host; `*` for every name.'),
    role: z.enum(ROLES).describe('`none`, `observe`, `operate` or `admin`.'),
    devices: z
      .array(
        z.string().transform((entry, context) => {
          const canonical = canonicalEntry(entry)
          if (canonical !== undefined) return canonical
          context.addIssue(
            `"${entry}" can match no device: an address such as 0000:3b:00.0, vendor:device such as 10de:1db4, a UUID, an mdev type such as mtty-2, or * is needed`,
          )
          return z.NEVER
        }),
      )
      .default(['*'])
      .describe('Devices it may use: addresses, `vendor:device`, mdev types, or `*`.'),
    adds_groups: z
      .boolean()
      .default(true)
      .describe('Whether it may add groups to its address spaces, or an admin does that for it.'),
    release_asked_after_ms: z
      .int()
      .min(0)
      .max(3_600_000)
      .default(DEFAULT_RELEASE_ASKED_MS)
      .describe(
        'Milliseconds after which the daemon closes a device of it that the host wants back; 0 for never.',
      ),
    opens_unreset: z
      .boolean()
      .default(true)
      .describe(
        'Whether it may open a device that another client may have used and that cannot be reset.',
      ),
    quota: quotaSchema.describe('The quotas of each identity; the table below has the defaults.'),
    shares_quota: z
      .boolean()
      .default(false)
      .describe('Whether all identities that the rule matches share one quota.'),
  })
  .refine(({ user, group, remote }) => remote === undefined || (user ?? group) === undefined, {
    error: 'a rule is about local clients (user, group) or remote ones (remote), not both',
  })

export const policySchema = z.strictObject({
  rule: z
    .array(ruleSchema)
    .default([])
    .describe('Rules, in order; the first that matches decides.'),
  total: quotaSchema.describe('What all identities may use together.'),
})

const quotaOf = (table: Partial<Record<string, number | undefined>>): Quota =>
  Object.fromEntries(
    Object.entries(table).flatMap(([name, max]) =>
      max === undefined ? [] : [[name, BigInt(max)]],
    ),
  )

function ruleOf(rule: z.infer<typeof ruleSchema>, index: number): Rule {
  const { user, group, remote, role, devices, adds_groups: addsGroups, quota } = rule
  const { release_asked_after_ms: releaseAskedAfterMs, opens_unreset: opensUnreset } = rule
  const account = rule.shares_quota ? { account: `rule ${index + 1}` } : {}
  const rest = {
    role,
    devices,
    addsGroups,
    releaseAskedAfterMs,
    opensUnreset,
    quota: quotaOf(quota),
    ...account,
  }
  if (remote === '*') return { who: { kind: 'remote' }, ...rest }
  if (remote !== undefined) return { who: { kind: 'remote', name: remote }, ...rest }
  const uid = user === undefined ? undefined : userNumber(String(user))
  const gid = group === undefined ? undefined : groupNumber(String(group))
  const who = {
    kind: 'local' as const,
    ...(uid === undefined ? {} : { uid }),
    ...(gid === undefined ? {} : { gid }),
  }
  return { who, ...rest }
}

/** The policy that a text says, or a ConfigError that names what is wrong and where. */
export function parsePolicy(text: string, path: string): Policy {
  let table: unknown
  try {
    table = parse(text)
  } catch (error) {
    throw new ConfigError(`Cannot read ${path}: ${(error as Error).message}`)
  }
  const parsed = policySchema.safeParse(table)
  if (!parsed.success)
    throw new ConfigError(`Cannot use the policy ${path}:\n${z.prettifyError(parsed.error)}`)
  return { rules: parsed.data.rule.map(ruleOf), total: quotaOf(parsed.data.total) }
}

/** The policy in force: loaded once at start, where it must be right, and again when told to. */
export class PolicyStore {
  readonly #path: string | undefined
  #policy: Policy
  #status: string
  #subordinates: readonly SubordinateUids[] = []
  readonly #subuid: string

  /** Without a file the built-in policy is in force: `defaultPolicy`. */
  constructor(options: {
    readonly path: string | undefined
    /** The effective uid of the daemon. */
    readonly ownUid: number
    readonly socketGid: number | undefined
    /** subuid(5). */
    readonly subuid?: string
  }) {
    this.#subuid = options.subuid ?? '/etc/subuid'
    this.#subordinates = subordinateUids(this.#subuid)
    this.#path = options.path
    this.#policy =
      options.path === undefined
        ? defaultPolicy({ ownUid: options.ownUid, operatorGid: options.socketGid })
        : this.#read(options.path)
    this.#status =
      options.path === undefined ? 'the built-in policy' : `loaded from ${options.path}`
  }

  grantOf = (identity: Identity): Grant => {
    const grant = grantOf(this.#policy, identity)
    if (identity.kind === 'remote' || grant.account !== undefined) return grant
    const owner = ownerOfUid(this.#subordinates, identity.uid)
    return owner === undefined ? grant : { ...grant, account: `uid ${owner}` }
  }

  total = (): Quota => this.#policy.total

  get status(): string {
    return this.#status
  }

  /** The policy as TOML, names as numbers. */
  get text(): string {
    return stringify(tableOf(this.#policy))
  }

  /** Read the file again; answers what is wrong with it, and then nothing has changed. */
  reload(): string | undefined {
    this.#subordinates = subordinateUids(this.#subuid)
    if (this.#path === undefined) return undefined
    try {
      this.#policy = this.#read(this.#path)
      this.#status = `loaded from ${this.#path}`
      return undefined
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      this.#status = `an older one: ${error.message}`
      return error.message
    }
  }

  #read(path: string): Policy {
    return parsePolicy(readTrusted(path), path)
  }
}

const quotaTable = (quota: Quota): Record<string, number> =>
  Object.fromEntries(Object.entries(quota).map(([name, max]) => [name, Number(max)]))

function tableOf({ rules, total }: Policy): Record<string, unknown> {
  const rule = rules.map(
    ({ who, role, devices, addsGroups, account, quota, releaseAskedAfterMs, opensUnreset }) => ({
      ...(who.kind === 'remote' ? { remote: who.name ?? '*' } : {}),
      ...(who.kind === 'local' && who.uid !== undefined ? { user: who.uid } : {}),
      ...(who.kind === 'local' && who.gid !== undefined ? { group: who.gid } : {}),
      role,
      devices: [...devices],
      adds_groups: addsGroups,
      shares_quota: account !== undefined,
      release_asked_after_ms: releaseAskedAfterMs ?? DEFAULT_RELEASE_ASKED_MS,
      opens_unreset: opensUnreset ?? true,
      quota: quotaTable(quota),
    }),
  )
  return { rule, total: quotaTable(total) }
}
