/** Device state in 1 MiB messages: bytes per second from the daemon and to it. */
import { rawRead, rawWrite } from './raw-client.mjs'
import { alternate, row } from './rounds.mjs'

const mebibytesPerSecond = async (bytes, move) => {
  const started = performance.now()
  const moved = await move()
  if (moved !== bytes) throw new Error(`${moved} bytes of ${bytes} arrived`)
  return bytes / 2 ** 20 / ((performance.now() - started) / 1000)
}

const reader = (target, bytes) => async () => {
  await target.startSaving()
  const rate = await mebibytesPerSecond(bytes, () => target.readSession())
  await target.endSession()
  return rate
}

const writer = (target, bytes) => async () => {
  await target.startResuming()
  const rate = await mebibytesPerSecond(bytes, () => target.writeSession(bytes))
  await target.endSession()
  return rate
}

const compare = async (name, scale, contenders) => {
  const answers = await alternate(scale, contenders)
  return row({ name, unit: 'MiB/s', better: 'higher', answers })
}

const each = (targets, measure, bytes) =>
  Object.fromEntries(
    Object.entries(targets).map(([name, target]) => [name, measure(target, bytes)]),
  )

/** `readers` and `writers` have vfiod first; the raw socket is added here. */
export const sessionRows = async ({ readers, writers, rawSocket }, scale) => {
  const bytes = scale.sessionBytes
  const rawReader = () => mebibytesPerSecond(bytes, () => rawRead(rawSocket, bytes))
  const rawWriter = () => mebibytesPerSecond(bytes, () => rawWrite(rawSocket, bytes))
  const read = { ...each(readers, reader, bytes), 'raw socket': rawReader }
  const write = { ...each(writers, writer, bytes), 'raw socket': rawWriter }
  return [await compare('session read', scale, read), await compare('session write', scale, write)]
}
