/**
 * Peer to peer: the DMA of one device reaches the registers of another that a container has mapped, and
 * the mapping leads there whatever becomes of the device and of the mmap it was made through.
 */

import { beforeAll, expect, test } from 'vitest'
import { PCI_COMMAND, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from '../../src/abi/pci.ts'
import type { Segment } from '../../src/os/memory.ts'
import { must } from './answers.ts'
import { describeType1 } from './backends.ts'
import { mapDma, setContainer, unmapDma } from './calls.ts'
import { EduDriver, REG } from './edu-driver.ts'

const PAGE = 4096n
const CONFIG = 7n << 40n
/** Within the 28 bits that an edu addresses. */
const IOVA = 0x100_0000n
const READ = 1

const describeTranslated = describeType1('an iommufd maps no BARs')

describeTranslated('a BAR that is mapped for a peer', (machine) => {
  const { kernel } = machine
  let names: [string, string]

  beforeAll(async () => {
    names = await machine.edus()
  })

  /** Both in one container: the one that does DMA, and the one whose first page is mapped for it. */
  const peers = async (flags?: number) => {
    const { container, group } = await machine.attached([names[0]])
    const actor = await new EduDriver(machine, await machine.deviceOf(group, names[0])).enable()
    const other = await machine.group(names[1])
    must(await setContainer(kernel, other, container), 'set the container')
    const peer = await new EduDriver(machine, await machine.deviceOf(other, names[1])).enable()
    const request = { offset: 0n, length: PAGE, access: 'read-write' } as const
    const segment = await machine.mmap(peer.device, request)
    if (typeof segment === 'number') throw new Error(`Cannot map the BAR: ${segment}`)
    await peer.write32(REG.liveness, 0)
    const where = { vaddr: segment.address, iova: IOVA, size: PAGE }
    expect(await mapDma(kernel, container, flags === undefined ? where : { ...where, flags })).toBe(
      0,
    )
    return { container, actor, peer, segment: segment as Segment }
  }

  const setDecoding = async ({ device }: EduDriver, isOn: boolean): Promise<void> => {
    const word = Buffer.alloc(2)
    word.writeUInt16LE(PCI_COMMAND_MASTER | (isOn ? PCI_COMMAND_MEMORY : 0))
    expect(await kernel.pwrite(device, word, CONFIG + BigInt(PCI_COMMAND))).toBe(2)
  }

  /** The complement of the identification, as the register of liveness answers it. */
  const ANSWER = ~0x0100_00ed >>> 0
  const NOTHING = 0xffff_ffff

  /** Let the actor copy the identification of the peer into its register of liveness. */
  const copy = async (actor: EduDriver): Promise<void> => {
    await actor.fetch(IOVA + REG.id, 4)
    await actor.store(IOVA + REG.liveness, 4)
  }

  test('is read and written by its DMA as by a processor', async () => {
    const { actor, peer } = await peers()

    await copy(actor)

    expect(await peer.read32(REG.liveness)).toBe(ANSWER)
  })

  test('is not written where it is mapped for reading', async () => {
    const { actor, peer } = await peers(READ)

    await copy(actor)

    expect(await peer.read32(REG.liveness)).toBe(NOTHING)
  })

  test('stays mapped for it when the process has unmapped it', async () => {
    const { actor, peer, segment } = await peers()
    expect(await machine.munmap(segment)).toBe(0)

    await copy(actor)

    expect(await peer.read32(REG.liveness)).toBe(ANSWER)
  })

  test('is not there while it does not decode, and stays mapped: it is there again afterwards', async () => {
    const { actor, peer } = await peers()
    await actor.fetch(IOVA + REG.id, 4)
    await setDecoding(peer, false)

    await actor.store(IOVA + REG.liveness, 4)

    await setDecoding(peer, true)
    expect(await peer.read32(REG.liveness)).toBe(NOTHING)
    await actor.store(IOVA + REG.liveness, 4)
    expect(await peer.read32(REG.liveness)).toBe(ANSWER)
  })

  test('is out of reach once it is unmapped', async () => {
    const { actor, peer, container } = await peers()
    await actor.fetch(IOVA + REG.id, 4)
    expect(await unmapDma(kernel, container, { iova: IOVA, size: PAGE })).toMatchObject({
      answer: 0,
    })

    await actor.store(IOVA + REG.liveness, 4)

    expect(await peer.read32(REG.liveness)).toBe(NOTHING)
  })
})
