// The policy file: what is taken, what is refused, and that the document tells the truth about it.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { PolicyStore, parsePolicy, ruleSchema } from '../../src/daemon/policy-file.ts'
import {
  defaultQuotas,
  grantOf,
  type Identity,
  QUOTAS,
  type QuotaName,
} from '../../src/rules/policy.ts'

const directory = mkdtempSync(join(tmpdir(), 'vfiod-policy-'))
afterAll(() => rmSync(directory, { recursive: true }))

const document = readFileSync(new URL('../../docs/policy.md', import.meta.url), 'utf8')
const local = (uid: number, ...gids: number[]): Identity => ({ kind: 'local', uid, gids })
const remote = (name: string): Identity => ({ kind: 'remote', name })
const roleIn = (toml: string, identity: Identity) => grantOf(parsePolicy(toml, 'p'), identity).role

describe('a policy', () => {
  test('names users and groups by name or number', () => {
    const toml = `
      [[rule]]
      user = "root"
      role = "admin"
      [[rule]]
      group = "daemon"
      role = "operate"
      [[rule]]
      user = 1000
      group = 50
      role = "observe"`

    expect(roleIn(toml, local(0, 0))).toBe('admin')
    expect(roleIn(toml, local(5, 7, 1))).toBe('operate')
    expect(roleIn(toml, local(1000, 50))).toBe('observe')
    expect(roleIn(toml, local(1000, 51))).toBe('none')
  })

  test('takes * for every remote name, and nothing else for a pattern', () => {
    expect(roleIn('[[rule]]\nremote = "*"\nrole = "observe"', remote('a'))).toBe('observe')
    expect(roleIn('[[rule]]\nremote = "a*"\nrole = "observe"', remote('ab'))).toBe('none')
    expect(roleIn('[[rule]]\nremote = "*"\nrole = "observe"', local(0))).toBe('none')
  })

  test('counts in whole numbers, and leaves to the defaults what it does not name', () => {
    const { rules, total } = parsePolicy(
      '[[rule]]\nrole = "operate"\n[rule.quota]\ndevices = 2\n[total]\nmappings = 0',
      'p',
    )

    expect(rules[0]?.quota).toEqual({ devices: 2n })
    expect(total).toEqual({ mappings: 0n })
  })

  test.each([
    ['an unknown key', '[[rule]]\nrole = "admin"\nuid = 0', 'uid'],
    ['an unknown role', '[[rule]]\nrole = "root"', 'role'],
    ['no role', '[[rule]]\nuser = 0', 'role'],
    ['an unknown quota', '[total]\nbytes = 1', 'bytes'],
    ['a negative quota', '[total]\ndevices = -1', 'devices'],
    [
      'a user that does not exist',
      '[[rule]]\nuser = "no-such-user"\nrole = "admin"',
      'no-such-user',
    ],
    [
      'a rule for local and remote at once',
      '[[rule]]\nuser = 0\nremote = "a"\nrole = "admin"',
      'not both',
    ],
    ['what is no TOML', '[[rule', 'Cannot read'],
  ])('with %s is refused, and says so', (_name, toml, text) => {
    expect(() => parsePolicy(toml, 'p')).toThrow(text)
  })
})

describe('PolicyStore', () => {
  const path = join(directory, 'policy.toml')
  const store = (text: string) => {
    writeFileSync(path, text)
    return new PolicyStore({ path, ownUid: 0, socketGid: undefined })
  }
  const OBSERVE = '[[rule]]\nuser = 1000\nrole = "observe"'

  test('without a file makes root and its own user admin, and lets the group of the socket operate', () => {
    const builtIn = new PolicyStore({ path: undefined, ownUid: 1001, socketGid: 50 })

    expect(builtIn.grantOf(local(0)).role).toBe('admin')
    expect(builtIn.grantOf(local(1001)).role).toBe('admin')
    expect(builtIn.grantOf(local(1000, 50)).role).toBe('operate')
    expect(builtIn.grantOf(local(1000)).role).toBe('none')
    expect(builtIn.grantOf(remote('a')).role).toBe('none')
    expect(builtIn.reload()).toBeUndefined()
  })

  test('has one quota for the identities of a rule that says so, and else one for each', () => {
    const shared = store(
      '[[rule]]\nuser = 7\nrole = "admin"\n[[rule]]\nrole = "operate"\nshares_quota = true',
    )

    expect(shared.grantOf(local(7)).account).toBeUndefined()
    expect(shared.grantOf(local(1000)).account).toBe('rule 2')
    expect(shared.grantOf(local(1001)).account).toBe('rule 2')
  })

  test('counts the subordinate uids of a user against the user', () => {
    const subuid = join(directory, 'subuid')
    writeFileSync(
      subuid,
      '# none\nroot:100000:65536\n1000:300000:10\nno-such-user:200000:9\nx:y:z\n',
    )
    writeFileSync(path, '[[rule]]\ngroup = 50\nrole = "operate"')
    const policy = new PolicyStore({ path, ownUid: 0, socketGid: undefined, subuid })
    const account = (uid: number) => policy.grantOf(local(uid, 50)).account

    expect([account(99_999), account(100_000), account(165_535), account(165_536)]).toEqual([
      undefined,
      'uid 0',
      'uid 0',
      undefined,
    ])
    expect([account(300_009), account(200_001)]).toEqual(['uid 1000', undefined])
    expect(policy.grantOf(local(100_000, 50)).role).toBe('operate')
  })

  test('takes a new file', () => {
    const policy = store(OBSERVE)
    writeFileSync(path, OBSERVE.replace('observe', 'operate'))

    expect(policy.reload()).toBeUndefined()
    expect(policy.grantOf(local(1000)).role).toBe('operate')
  })

  test('keeps the old one when the new file is wrong or gone, and says so', () => {
    const policy = store(OBSERVE)
    writeFileSync(path, 'nonsense = true')

    expect(policy.reload()).toContain('nonsense')
    expect(policy.status).toContain('an older one')
    expect(policy.grantOf(local(1000)).role).toBe('observe')
    rmSync(path)
    expect(policy.reload()).toContain('ENOENT')
    expect(policy.grantOf(local(1000)).role).toBe('observe')
  })

  test('refuses to start with a wrong file', () => {
    expect(() => store('rule = 1')).toThrow('Cannot use the policy')
  })

  test('tells the policy in force, which reads as the same policy', () => {
    const policy = store(`${OBSERVE}\n[[rule]]\nremote = "*"\nrole = "none"\n[total]\ndevices = 3`)

    expect(parsePolicy(policy.text, 'p').total).toEqual({ devices: 3n })
    expect(roleIn(policy.text, local(1000))).toBe('observe')
  })
})

describe('docs/policy.md', () => {
  test('has a row for every key of a rule, as the schema describes it', () => {
    const rows = Object.entries(ruleSchema.shape).map(
      ([key, schema]) => `| \`${key}\` | ${schema.description} |`,
    )

    for (const row of rows) expect(document).toContain(row)
  })

  test('has a row for every quota, with its defaults, and no other', () => {
    const table = document.slice(document.indexOf('| quota | counts |'))
    const rows = [...table.matchAll(/^\| `([a-z_]+)` \|.*\| ([^|]+) \| ([^|]+) \|$/gm)]
    const [small, large] = [defaultQuotas(8n), defaultQuotas(16n)]
    // What grows with the memory of the host is a share of it.
    const text = (whose: 'identity' | 'total', name: QuotaName) =>
      small[whose][name] === large[whose][name]
        ? String(small[whose][name])
        : `${small[whose][name]}/8 of the memory`

    expect(rows.map(([, ...cells]) => cells)).toEqual(
      QUOTAS.map((name) => [name, text('identity', name), text('total', name)]),
    )
  })

  test('has an example that is a policy', () => {
    const [, example = ''] = /```toml\n([\s\S]*?)```/.exec(document) ?? []
    const policy = parsePolicy(example, 'docs/policy.md')

    expect(grantOf(policy, local(0)).role).toBe('admin')
    expect(grantOf(policy, local(1001))).toMatchObject({
      role: 'operate',
      addsGroups: false,
      quota: { devices: 2n },
    })
    expect(grantOf(policy, remote('spiffe://example/migration')).role).toBe('operate')
    expect(grantOf(policy, local(4711)).role).toBe('observe')
  })
})
