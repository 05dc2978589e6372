/** Step 3. A real driver's work: the device copies bytes of this process to another place of it. */
import type { Device__Output as Device } from '../../proto/vfiod/v1/Device.ts'
import { EduDriver, TRANSFER_BYTES } from '../edu-driver.ts'
import type { Stage } from '../stage.ts'
import type { DemoMemory } from './memory.ts'

const PAGE = 4096

/** Bytes of one transfer, which nothing else would write. */
export const pattern = (seed: number): Buffer =>
  Buffer.from(Array.from({ length: TRANSFER_BYTES }, (_, n) => (n * 31 + seed) & 0xff))

export const copyByDma = async (
  { client, tell }: Stage,
  device: Device,
  memory: DemoMemory,
): Promise<EduDriver> => {
  const { name } = device
  tell.step(`Drive a device: ${name} copies memory by DMA and interrupts when it is done`)
  const opened = await client.device.openDevice({ spaceId: memory.spaceId, name })
  const regions = (opened.device?.regions ?? []).filter(({ size }) => size !== '0')
  tell.say(`OpenDevice answers ${regions.length} regions:`)
  tell.show(regions.map((region) => `${region.name} (${region.size} bytes)`).join(', '))
  const driver = await EduDriver.start(client, name)
  tell.check('the device identifies itself', await driver.identification(), 0x0100_00edn)

  const { segment, iova } = memory
  const bytes = pattern(1)
  segment.view(0, TRANSFER_BYTES).set(bytes)
  segment.view(PAGE, TRANSFER_BYTES).fill(0)
  tell.say('WatchIrqs streams its interrupts. This process writes half a page; the device')
  tell.say('reads it, then writes it to the next page:')
  const readIrqs = await driver.readFrom(iova, TRANSFER_BYTES)
  const writeIrqs = await driver.writeTo(iova + BigInt(PAGE), TRANSFER_BYTES)
  tell.check('each transfer raised one interrupt', [readIrqs, writeIrqs], ['1', '1'])
  tell.check(
    `the ${TRANSFER_BYTES} bytes are there, in this process's own mapping`,
    bytes.equals(segment.view(PAGE, TRANSFER_BYTES)),
    true,
  )
  return driver
}
