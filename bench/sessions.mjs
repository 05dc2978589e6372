/** Device state in 1 MiB messages: bytes per second from a server and to it, and what it costs it. */
import { cpuMs } from './processes.mjs'
import { rawRead, rawWrite } from './raw-client.mjs'
import { alternate, row } from './rounds.mjs'

const MIB = 2 ** 20
const GIB = 2 ** 30

/** Moves a session; answers MiB per second, and the milliseconds of CPU that the server took per GiB. */
const timed = async (pid, bytes, move) => {
  const cpuBefore = cpuMs(pid)
  const started = performance.now()
  const moved = await move()
  const seconds = (performance.now() - started) / 1000
  const cpu = cpuMs(pid) - cpuBefore
  if (moved !== bytes) throw new Error(`${moved} bytes of ${bytes} arrived`)
  return { rate: bytes / MIB / seconds, cpu: (cpu * GIB) / bytes }
}

const reader = (target, bytes) => async () => {
  await target.startSaving()
  const answer = await timed(target.pid, bytes, () => target.readSession())
  await target.endSession()
  return answer
}

const writer = (target, bytes) => async () => {
  await target.startResuming()
  const answer = await timed(target.pid, bytes, () => target.writeSession(bytes))
  await target.endSession()
  return answer
}

const compare = async (name, scale, contenders) => {
  const answers = await alternate(scale, contenders)
  return [
    row({ name, unit: 'MiB/s', better: 'higher', answers, pick: ({ rate }) => rate }),
    row({
      name: `${name}, CPU of the server`,
      unit: 'ms/GiB',
      better: 'lower',
      answers,
      pick: ({ cpu }) => cpu,
    }),
  ]
}

const each = (targets, measure, bytes) =>
  Object.fromEntries(
    Object.entries(targets).map(([name, target]) => [name, measure(target, bytes)]),
  )

/** `readers` and `writers` have vfiod first; the raw socket is added here. */
export const sessionRows = async ({ readers, writers, raw }, scale) => {
  const { sessionBytes: bytes } = scale
  const rawReader = () => timed(raw.pid, bytes, () => rawRead(raw.socket, bytes))
  const rawWriter = () => timed(raw.pid, bytes, () => rawWrite(raw.socket, bytes))
  const read = { ...each(readers, reader, bytes), 'raw socket': rawReader }
  const write = { ...each(writers, writer, bytes), 'raw socket': rawWriter }
  return [
    ...(await compare('session read', scale, read)),
    ...(await compare('session write', scale, write)),
  ]
}
