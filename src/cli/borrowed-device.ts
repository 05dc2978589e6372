/**
 * A device for as long as one command needs it. Everything in vfiod belongs to a process, so a
 * command makes an address space, adds the group of the device, opens it, acts, and gives it all
 * back; if it is killed in between, the daemon does that.
 */
import { randomBytes } from 'node:crypto'
import type { Device__Output as Device } from '../proto/vfiod/v1/Device.ts'
import type { DeviceInfo__Output as DeviceInfo } from '../proto/vfiod/v1/DeviceInfo.ts'
import type { CommandSession } from './session.ts'

export interface BorrowedDevice extends CommandSession {
  readonly name: string
  readonly device: Device
  readonly info: DeviceInfo
}

/** Tells in messages and in `vfioctl spaces` who made it. */
export const newSpaceId = (): string => `vfioctl-${randomBytes(3).toString('hex')}`

/** Runs with a new address space, which is destroyed afterwards in any case. */
export const withSpace = async <Result>(
  { client, signal }: CommandSession,
  work: (spaceId: string) => Promise<Result>,
): Promise<Result> => {
  const spaceId = newSpaceId()
  await client.addressSpace.createSpace({ spaceId }, { signal })
  let result: Result
  try {
    result = await work(spaceId)
  } catch (error) {
    // What went wrong first is what the user wants to know.
    await client.addressSpace.destroySpace({ spaceId }).catch(() => undefined)
    throw error
  }
  await client.addressSpace.destroySpace({ spaceId })
  return result
}

export const withDevice = async <Result>(
  session: CommandSession,
  name: string,
  act: (borrowed: BorrowedDevice) => Promise<Result>,
): Promise<Result> => {
  const { client, vfToken, signal } = session
  const { device } = await client.inventory.getDevice({ name }, { signal })
  if (device === null) throw new Error('the daemon answered without a device')
  return withSpace(session, async (spaceId) => {
    await client.addressSpace.addGroup({ spaceId, groupId: device.groupId }, { signal })
    const opened = await client.device.openDevice({ spaceId, name, vfToken }, { signal })
    if (opened.device === null) throw new Error('the daemon answered without a device')
    return act({ ...session, name, device, info: opened.device })
  })
}
