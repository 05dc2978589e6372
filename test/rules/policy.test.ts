import { describe, expect, test } from 'vitest'
import {
  allowsDevice,
  defaultPolicy,
  type Grant,
  grantOf,
  hasRole,
  type Identity,
  NO_GRANT,
  ROLES,
  type Rule,
} from '../../src/rules/policy.ts'

const local = (uid: number, ...gids: number[]): Identity => ({ kind: 'local', uid, gids })
const remote = (name: string): Identity => ({ kind: 'remote', name })
const rule = (who: Rule['who'], role: Rule['role']): Rule => ({
  who,
  role,
  devices: [],
  addsGroups: false,
  quota: {},
})
const roleOf = (rules: Rule[], identity: Identity) => grantOf({ rules, total: {} }, identity).role

describe('grantOf', () => {
  test('lets the first rule that matches decide', () => {
    const rules = [
      rule({ kind: 'local', uid: 1000 }, 'observe'),
      rule({ kind: 'local', gid: 50 }, 'operate'),
      rule({ kind: 'local' }, 'none'),
    ]

    expect(roleOf(rules, local(1000, 50))).toBe('observe')
    expect(roleOf(rules, local(1001, 7, 50))).toBe('operate')
    expect(roleOf(rules, local(1001, 7))).toBe('none')
  })

  test('matches only when every named property does', () => {
    const rules = [rule({ kind: 'local', uid: 1000, gid: 50 }, 'admin')]

    expect(roleOf(rules, local(1000, 50))).toBe('admin')
    expect(roleOf(rules, local(1000, 51))).toBe('none')
    expect(roleOf(rules, local(1001, 50))).toBe('none')
  })

  test('never takes a remote identity for a local one, nor the other way round', () => {
    expect(roleOf([rule({ kind: 'local' }, 'admin')], remote('root'))).toBe('none')
    expect(roleOf([rule({ kind: 'remote' }, 'admin')], local(0, 0))).toBe('none')
    expect(roleOf([rule({ kind: 'remote', name: 'a' }, 'admin')], remote('b'))).toBe('none')
    expect(roleOf([rule({ kind: 'remote', name: 'a' }, 'operate')], remote('a'))).toBe('operate')
  })

  test('grants nothing to who matches no rule', () => {
    expect(grantOf({ rules: [], total: {} }, local(0, 0))).toBe(NO_GRANT)
  })
})

describe('defaultPolicy', () => {
  test('makes root admin, the operators operate, and everybody else nothing', () => {
    const policy = defaultPolicy({ ownUid: 0, operatorGid: 50 })

    expect(grantOf(policy, local(0, 0)).role).toBe('admin')
    expect(grantOf(policy, local(1000, 50)).role).toBe('operate')
    expect(grantOf(policy, local(1000, 51)).role).toBe('none')
    expect(grantOf(policy, remote('anybody')).role).toBe('none')
  })

  test('makes the user of the daemon admin beside root, and not the members of its group', () => {
    const policy = defaultPolicy({ ownUid: 1000, operatorGid: undefined })

    expect(grantOf(policy, local(0, 0)).role).toBe('admin')
    expect(grantOf(policy, local(1000, 1000))).toMatchObject({ role: 'admin', devices: ['*'] })
    expect(grantOf(policy, local(1001, 1000)).role).toBe('none')
  })

  test('makes the user of the daemon admin where it is an operator as well', () => {
    const policy = defaultPolicy({ ownUid: 1000, operatorGid: 50 })

    expect(grantOf(policy, local(1000, 50)).role).toBe('admin')
  })

  test('without a group leaves the admins alone', () => {
    const policy = defaultPolicy({ ownUid: 0, operatorGid: undefined })

    expect(grantOf(policy, local(1000, 0)).role).toBe('none')
  })
})

test('hasRole: each role may do what the ones before it may', () => {
  const holds = ROLES.map((role) =>
    ROLES.filter((needed) => hasRole({ ...NO_GRANT, role }, needed)),
  )

  expect(holds.map(({ length }) => length)).toEqual([1, 2, 3, 4])
})

describe('allowsDevice', () => {
  const edu = { name: '0000:00:04.0', pci: { vendor: 0x1234, device: 0x11e8 }, mdevType: undefined }
  const mtty = { name: '83b8f4f2', pci: undefined, mdevType: 'mtty-2' }
  const granting = (...devices: string[]): Grant => ({ ...NO_GRANT, devices })

  test.each(['*', '0000:00:04.0', '1234:11e8'])('knows a PCI device by %s', (allowed) => {
    expect(allowsDevice(granting('other', allowed), edu)).toBe(true)
  })

  test.each(['*', '83b8f4f2', 'mtty-2'])('knows a mediated device by %s', (allowed) => {
    expect(allowsDevice(granting(allowed), mtty)).toBe(true)
  })

  test('refuses what is not on the list', () => {
    expect(allowsDevice(granting(), edu)).toBe(false)
    expect(allowsDevice(granting('0000:00:05.0', '1234:11e9', 'mtty-1'), edu)).toBe(false)
    expect(allowsDevice(granting('mtty-1'), mtty)).toBe(false)
  })
})
