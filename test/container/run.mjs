// Builds the image of the Dockerfile, runs it without privileges as docs/deployment.md says, and looks
// at it from outside: `node test/container/run.mjs`, as root, where podman or docker is.
//
// CONTAINER_ENGINE names another program with its global options ("podman --runtime runc"),
// CONTAINER_BUILD another build ("buildah bud --isolation chroot"), CONTAINER_RUN more options of `run`.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chownSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const UID = 65532
const STRANGER = 65533
const IMAGE = 'vfiod-check'
const NAME = `vfiod-check-${process.pid}`
const VFIOCTL = 'dist/cli/vfioctl.js'
const READY_MS = 30_000

const words = (text) => text.split(' ').filter((word) => word !== '')
const tried = ([program, ...args], options = {}) => {
  const result = spawnSync(program, args, { cwd: ROOT, encoding: 'utf8', ...options })
  if (result.error) throw result.error
  return { code: result.status, out: result.stdout.trim(), err: result.stderr.trim() }
}
const done = (command, options) => {
  const { code, out, err } = tried(command, options)
  assert.equal(code, 0, `${command.join(' ')}\n${out}\n${err}`)
  return out
}

const isThere = (program) => spawnSync(program, ['--version']).status === 0
const engine = words(process.env.CONTAINER_ENGINE ?? ['podman', 'docker'].find(isThere) ?? '')
if (engine.length === 0 || process.getuid() !== 0) {
  console.error('this needs root, and podman or docker')
  process.exit(1)
}
const build = process.env.CONTAINER_BUILD
  ? words(process.env.CONTAINER_BUILD)
  : [...engine, 'build', ...(engine[0] === 'podman' ? ['--format', 'docker'] : [])]

const directory = mkdtempSync(join(tmpdir(), 'vfiod-container-'))
const sockets = join(directory, 'run')
const settings = join(directory, 'etc')
for (const made of [sockets, settings]) done(['install', '-d', '-m', '755', made])
done(['chmod', '755', directory])
chownSync(sockets, UID, UID)
writeFileSync(
  join(settings, 'vfiod.toml'),
  'policy = "/etc/vfiod/policy.toml"\nsocket = "/run/vfiod/vfiod.sock"\n',
)
writeFileSync(join(settings, 'policy.toml'), `[[rule]]\nuser = ${UID}\nrole = "admin"\n`)

const check = async (title, work) => {
  await work()
  console.log(`ok  ${title}`)
}
const socket = join(sockets, 'vfiod.sock')
const vfioctl = (uid, ...args) =>
  tried([process.execPath, VFIOCTL, '--socket', socket, ...args], { uid, gid: uid })
const ofClient = (...args) => {
  const { code, out, err } = vfioctl(UID, ...args, '--json')
  assert.equal(code, 0, err)
  return JSON.parse(out)
}
const inside = (...command) => [...engine, 'exec', NAME, ...command]
const logs = () => tried([...engine, 'logs', NAME])

try {
  await check('the Dockerfile builds', () => done([...build, '--tag', IMAGE, '.']))
  await check('the container starts, with nothing but its user', async () => {
    const options = ['--cap-drop', 'ALL', '--security-opt', 'no-new-privileges', '--read-only']
    const sight = ['--network', 'none', '--pid', 'host']
    const volumes = ['--volume', `${sockets}:/run/vfiod`, '--volume', `${settings}:/etc/vfiod:ro`]
    const more = words(process.env.CONTAINER_RUN ?? '')
    const how = ['--detach', '--name', NAME, ...options, ...sight, ...volumes, ...more]
    done([...engine, 'run', ...how, IMAGE, '--sim'])
    for (let waited = 0; !logs().out.includes('vfiod: ready'); waited += 100) {
      assert.ok(waited < READY_MS, `not ready: ${JSON.stringify(logs())}`)
      await delay(100)
    }
  })
  await check(`it runs as ${UID}, without a capability, and can gain none`, () => {
    const pid = done([...engine, 'inspect', '--format', '{{.State.Pid}}', NAME])
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    assert.match(status, new RegExp(`^Uid:(\\s${UID}){4}$`, 'm'))
    assert.match(status, new RegExp(`^Gid:(\\s${UID}){4}$`, 'm'))
    for (const set of ['CapPrm', 'CapEff', 'CapBnd', 'CapAmb'])
      assert.match(status, new RegExp(`^${set}:\\s0+$`, 'm'))
    assert.match(status, /^NoNewPrivs:\s1$/m)
  })
  await check('it can write nowhere but beside its sockets', () => {
    for (const place of ['/opt/vfiod/x', '/etc/vfiod/x', '/x'])
      assert.notEqual(tried(inside('touch', place)).code, 0, place)
    done(inside('touch', '/run/vfiod/x'))
    done(inside('rm', '/run/vfiod/x'))
  })
  await check('its sockets are its own, and 0660', () => {
    for (const name of ['vfiod.sock', 'fds.sock']) {
      const { mode, uid, gid } = statSync(join(sockets, name))
      assert.deepEqual({ mode: mode & 0o777, uid, gid }, { mode: 0o660, uid: UID, gid: UID })
    }
  })
  await check('a client outside is who it is, and drives a device', () => {
    const who = ofClient('whoami')
    assert.deepEqual([who.identity, who.role], [`uid ${UID}`, 'ROLE_ADMIN'])
    const { devices } = ofClient('devices')
    const [edu] = devices.filter(({ deviceId }) => deviceId === 0x11e8)
    ofClient('bind', edu.name)
    const { out } = vfioctl(UID, 'region', 'read', edu.name, 'BAR0', '0', '4', '--width', '4')
    assert.match(out, /010000ed/, 'the identification register of edu')
  })
  await check('another user outside does not even reach it', () => {
    const { code, err } = vfioctl(STRANGER, 'whoami')
    assert.equal(code, 1)
    assert.match(err, /EACCES/)
  })
  await check('its health check passes', () => {
    const found = done([...engine, 'inspect', '--format', '{{json .Config.Healthcheck}}', NAME])
    const [kind, ...command] = JSON.parse(found)?.Test ?? []
    assert.equal(kind, 'CMD', `the image has no health check: ${found}`)
    assert.equal(done(inside(...command)), 'serving')
  })
  await check('SIGTERM ends it in good order: 0, and its sockets are gone', () => {
    done([...engine, 'kill', '--signal', 'TERM', NAME])
    assert.equal(done([...engine, 'wait', NAME]), '0', JSON.stringify(logs()))
    for (const name of ['vfiod.sock', 'fds.sock'])
      assert.equal(statSync(join(sockets, name), { throwIfNoEntry: false }), undefined, name)
  })
} finally {
  tried([...engine, 'rm', '--force', NAME])
  rmSync(directory, { recursive: true, force: true })
}
