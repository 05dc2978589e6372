/**
 * vfio.h: enum vfio_device_mig_state, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE and the data_fd, on the
 * mtty device. What it leaves in a state outlives a close, so every device here is a new one.
 */

import { describe, expect, test } from 'vitest'
import { VFIO_MIG_GET_PRECOPY_INFO, vfio_precopy_info } from '../../src/abi/mig-v2.ts'
import { MIG_STATES } from '../../src/rules/mig-arcs.ts'
import { said } from './answers.ts'
import { describeContract, unless } from './backends.ts'
import { HEADER_SIZE, MttyDriver, PORT_SIZE, STATE, type StateName, UART } from './mtty-driver.ts'

const NAMES = Object.keys(STATE) as StateName[]

/** How a fresh device gets into a state. RESUMING is left again only when its data is complete. */
const WAY: Record<StateName, readonly StateName[]> = {
  RUNNING: [],
  RUNNING_P2P: ['RUNNING_P2P'],
  STOP: ['STOP'],
  STOP_COPY: ['STOP_COPY'],
  RESUMING: ['RESUMING'],
  PRE_COPY: ['PRE_COPY'],
  PRE_COPY_P2P: ['PRE_COPY_P2P'],
}

/**
 * For each current state, each wanted one in the order of NAMES: `-` for done without a data_fd,
 * `fd` for done with one, `x` for EINVAL.
 */
const MATRIX: Record<StateName, string> = {
  //              STOP RUN  S_C  RES  R_P2P PRE  PRE_P2P
  STOP: /*     */ '-    -    fd   fd   -     fd   fd',
  RUNNING: /*  */ '-    -    fd   fd   -     fd   fd',
  STOP_COPY: /**/ '-    -    -    fd   -     x    x',
  RESUMING: /* */ '-    -    fd   -    -     fd   fd',
  RUNNING_P2P: /**/ '-  -    fd   fd   -     fd   fd',
  PRE_COPY: /* */ '-    -    -    fd   -     -    -',
  PRE_COPY_P2P: /**/ '- -    -    fd   -     -    -',
}

const cells = NAMES.flatMap((from) =>
  (MATRIX[from].split(/ +/) as ('-' | 'fd' | 'x')[]).map((effect, index) => ({
    from,
    to: NAMES[index] as StateName,
    effect,
  })),
)

describeContract('migration', (machine) => {
  const { kernel } = machine

  const inState = async (state: StateName): Promise<MttyDriver> => {
    const mtty = await MttyDriver.make(machine, 'mtty-1')
    const complete = state === 'RESUMING' ? await mtty.saved() : Buffer.alloc(0)
    if (state === 'RESUMING') await mtty.set('RUNNING')
    for (const step of WAY[state]) {
      const { dataFd } = await mtty.set(step)
      if (step === 'RESUMING') await kernel.write(dataFd, complete)
    }
    return mtty
  }

  const precopyInfo = async (dataFd: number, argsz = 24) => {
    const bytes = vfio_precopy_info.encode({ argsz, flags: 0 })
    const answer = await kernel.ioctl(dataFd, VFIO_MIG_GET_PRECOPY_INFO.number, bytes)
    return { answer: said(answer), ...vfio_precopy_info.decode(bytes) }
  }

  describe('VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE', () => {
    test('a new device is RUNNING, without a data_fd', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')

      expect(await mtty.state()).toBe(STATE.RUNNING)
    })

    test.each(cells)('$from to $to: $effect', async ({ from, to, effect }) => {
      const mtty = await inState(from)

      const set = await mtty.set(to)

      const isRefused = effect === 'x'
      expect(said(set.answer)).toBe(isRefused ? 'EINVAL' : 0)
      expect(set.state).toBe(STATE[to])
      if (effect === 'fd') expect(set.dataFd).toBeGreaterThanOrEqual(0)
      else expect(set.dataFd).toBe(-1)
      expect(await mtty.state()).toBe(isRefused ? STATE[from] : STATE[to])
      await mtty.reset()
    })

    test.each(NAMES)('%s to ERROR, or to no state at all: EINVAL', async (from) => {
      const mtty = await inState(from)

      for (const wanted of [0, MIG_STATES.length, 0xffff_ffff]) {
        const set = await mtty.set(wanted)
        expect([said(set.answer), set.state, set.dataFd]).toEqual(['EINVAL', wanted, -1])
      }

      expect(await mtty.state()).toBe(STATE[from])
      await mtty.reset()
    })

    test.each(NAMES)('VFIO_DEVICE_RESET goes from %s to RUNNING', async (from) => {
      const mtty = await inState(from)

      expect(await mtty.reset()).toBe(0)

      expect(await mtty.state()).toBe(STATE.RUNNING)
    })
  })

  describe('a saving session', () => {
    test('has a header in PRE_COPY, and for now no more', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-2')
      const dataFd = await mtty.session('PRE_COPY')

      const header = await mtty.drain(dataFd)

      expect(header.toString('hex')).toBe(
        '4e2c3e8c89099d7e' + '01000000' + '00000000' + '02000000' + '00000000',
      )
      expect(await kernel.read(dataFd, new Uint8Array(8))).toBe(0)
      await mtty.reset()
    })

    test('goes on in STOP_COPY with the ports, and ends there', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-2')
      const dataFd = await mtty.session('PRE_COPY')
      await mtty.drain(dataFd)

      await mtty.set('PRE_COPY_P2P')
      await mtty.set('STOP_COPY')

      expect((await mtty.drain(dataFd)).length).toBe(2 * PORT_SIZE)
      expect(await kernel.read(dataFd, new Uint8Array(8))).toBe(0)
      await mtty.reset()
    })

    test.each([
      ['mtty-1', 1],
      ['mtty-2', 2],
    ] as const)('from STOP has all of an %s at once', async (type, ports) => {
      const mtty = await MttyDriver.make(machine, type)

      const stream = await mtty.saved()

      expect(stream.length).toBe(HEADER_SIZE + ports * PORT_SIZE)
      expect(stream.readUInt32LE(16)).toBe(ports)
      await mtty.reset()
    })

    test('has a port as one struct, byte for byte', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')
      await mtty.write(UART.lcr, 0x83)
      await mtty.write(UART.data, 0x34)
      await mtty.write(UART.ier, 0x12)
      await mtty.write(UART.lcr, 0x03)
      await mtty.write(UART.iirFcr, 0x01)
      await mtty.write(UART.mcr, 0x0b)
      await mtty.write(UART.scr, 0x5a)
      for (const byte of [0xa1, 0xa2, 0xa3]) await mtty.write(UART.data, byte)
      await mtty.read(UART.data)

      const port = (await mtty.saved()).subarray(HEADER_SIZE)

      expect(port.subarray(0, 35).toString('hex')).toBe(
        [
          '000000030b00005a',
          'a1a2a300000000000000000000000000',
          '030102' + '00' + '00' + '00',
          '3412' + '01' + '10' + '01',
        ].join(''),
      )
      await mtty.reset()
    })

    test('can be read in pieces of any size', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')
      const dataFd = await mtty.session('STOP_COPY')
      const lengths: number[] = []
      for (let length = 1; length > 0; lengths.push(length))
        length = await kernel.read(dataFd, new Uint8Array(25))

      expect(lengths).toEqual([25, 25, 10, 0])
      await mtty.reset()
    })

    test('is an orphan once the device leaves it: ENODEV, and stays one', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')
      const first = await mtty.session('PRE_COPY')
      await mtty.set('RUNNING')
      expect(said(await kernel.read(first, new Uint8Array(8)))).toBe('ENODEV')

      const second = await mtty.session('PRE_COPY')

      expect(said(await kernel.read(first, new Uint8Array(8)))).toBe('ENODEV')
      expect(await kernel.read(second, new Uint8Array(8))).toBe(8)
      await mtty.reset()
      expect(said(await kernel.read(second, new Uint8Array(8)))).toBe('ENODEV')
    })

    test('is a stream for reading: ESPIPE at an offset, EBADF for writing', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')
      const dataFd = await mtty.session('STOP_COPY')

      expect(said(await kernel.pread(dataFd, new Uint8Array(8), 0n))).toBe('ESPIPE')
      expect(said(await kernel.write(dataFd, new Uint8Array(8)))).toBe('EBADF')
      await mtty.reset()
    })
  })

  describe('VFIO_MIG_GET_PRECOPY_INFO', () => {
    test('counts down what is left of the initial bytes', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')
      const dataFd = await mtty.session('PRE_COPY')
      expect(await precopyInfo(dataFd)).toEqual({
        answer: 0,
        argsz: 24,
        flags: 0,
        initial_bytes: 24n,
        dirty_bytes: 0n,
      })

      await kernel.read(dataFd, new Uint8Array(10))
      expect((await precopyInfo(dataFd)).initial_bytes).toBe(14n)

      await mtty.drain(dataFd)
      await mtty.set('PRE_COPY_P2P')
      expect(await precopyInfo(dataFd)).toMatchObject({ answer: 0, initial_bytes: 0n })
      await mtty.reset()
    })

    test('refuses an argsz below 24: EINVAL', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')

      expect((await precopyInfo(await mtty.session('PRE_COPY'), 23)).answer).toBe('EINVAL')
      await mtty.reset()
    })

    test('refuses outside of pre-copy: EINVAL', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')
      const dataFd = await mtty.session('PRE_COPY')
      await mtty.set('STOP_COPY')
      expect((await precopyInfo(dataFd)).answer).toBe('EINVAL')

      await mtty.set('RUNNING')
      expect((await precopyInfo(dataFd)).answer).toBe('EINVAL')
    })

    test('is the only request of a data_fd: ENOTTY', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')
      const dataFd = await mtty.session('PRE_COPY')
      expect(said(await kernel.ioctl(dataFd, 0x3b7a, undefined))).toBe('ENOTTY')

      await mtty.reset()
      const resuming = await mtty.session('RESUMING')
      expect((await precopyInfo(resuming)).answer).toBe('ENOTTY')
      await mtty.reset()
    })
  })

  describe('a resuming session', () => {
    const marked = async (marker: number): Promise<Buffer> => {
      const source = await MttyDriver.make(machine, 'mtty-1')
      await source.write(UART.scr, marker)
      const stream = await source.saved()
      await source.reset()
      return stream
    }

    /** A device in RESUMING, with another marker than the stream has. */
    const target = async (type: 'mtty-1' | 'mtty-2' = 'mtty-1') => {
      const mtty = await MttyDriver.make(machine, type)
      await mtty.write(UART.scr, 0x11)
      return { mtty, dataFd: await mtty.session('RESUMING') }
    }

    const write = async (dataFd: number, bytes: Uint8Array) =>
      said(await kernel.write(dataFd, bytes))

    test.each([1, 7, 24, 60])('loads the stream, written %i bytes at a time', async (size) => {
      const stream = await marked(0x5a)
      const { mtty, dataFd } = await target()
      for (let at = 0; at < stream.length; at += size)
        await kernel.write(dataFd, stream.subarray(at, at + size))
      expect(await mtty.read(UART.scr)).toBe(0x11)

      expect((await mtty.set('RUNNING')).answer).toBe(0)

      expect(await mtty.state()).toBe(STATE.RUNNING)
      expect(await mtty.read(UART.scr)).toBe(0x5a)
    })

    test('with bytes missing does not load: EINVAL, and stays RESUMING', async () => {
      const stream = await marked(0x5a)
      const { mtty, dataFd } = await target()
      await kernel.write(dataFd, stream.subarray(0, 59))

      const set = await mtty.set('RUNNING')
      expect([said(set.answer), set.state, set.dataFd]).toEqual(['EINVAL', STATE.RUNNING, -1])
      expect(await mtty.state()).toBe(STATE.RESUMING)

      expect(await write(dataFd, stream.subarray(59))).toBe(1)
      expect((await mtty.set('STOP')).answer).toBe(0)
      expect(await mtty.read(UART.scr)).toBe(0x5a)
      await mtty.reset()
    })

    test('refuses a byte too many, and all of its write: ENOMEM', async () => {
      const stream = await marked(0x5a)
      const { mtty, dataFd } = await target()
      expect(await write(dataFd, stream)).toBe(60)

      expect(await write(dataFd, new Uint8Array(1))).toBe('ENOMEM')
      expect((await mtty.set('STOP')).answer).toBe(0)
      await mtty.reset()
    })

    test('of an mtty-1 refuses the stream of an mtty-2 in one write: ENOMEM', async () => {
      const source = await MttyDriver.make(machine, 'mtty-2')
      const stream = await source.saved()
      const { mtty, dataFd } = await target('mtty-1')

      expect(await write(dataFd, stream)).toBe('ENOMEM')
      await mtty.reset()
      await source.reset()
    })

    test('refuses the write that completes a header of another device: EFAULT', async () => {
      const source = await MttyDriver.make(machine, 'mtty-2')
      const stream = await source.saved()
      const { mtty, dataFd } = await target('mtty-1')

      expect(await write(dataFd, stream.subarray(0, 20))).toBe(20)
      expect(await write(dataFd, stream.subarray(20, 30))).toBe('EFAULT')
      expect(await write(dataFd, stream.subarray(30, 60))).toBe(30)
      await mtty.reset()
      await source.reset()
    })

    test.each([
      ['magic', 0],
      ['major version', 8],
      ['minor version', 12],
      ['number of ports', 16],
      ['flags', 20],
    ])('refuses a header with another %s: EFAULT', async (_what, at) => {
      const stream = await marked(0x5a)
      stream[at] = (stream[at] as number) ^ 0x80
      const { mtty, dataFd } = await target()

      expect(await write(dataFd, stream)).toBe('EFAULT')
      await mtty.reset()
    })

    test('loads a stream whose header it refused, as soon as it is long enough', async () => {
      const stream = await marked(0x5a)
      stream[0] = 0
      const { mtty, dataFd } = await target()
      expect(await write(dataFd, stream.subarray(0, 24))).toBe('EFAULT')
      expect(await write(dataFd, stream.subarray(24))).toBe(36)

      expect((await mtty.set('STOP')).answer).toBe(0)

      expect(await mtty.read(UART.scr)).toBe(0x5a)
      await mtty.reset()
    })

    test('is a stream for writing: ESPIPE at an offset, EBADF for reading', async () => {
      const { mtty, dataFd } = await target()

      expect(said(await kernel.pwrite(dataFd, new Uint8Array(8), 0n))).toBe('ESPIPE')
      expect(said(await kernel.read(dataFd, new Uint8Array(8)))).toBe('EBADF')
      await mtty.reset()
    })

    test('that was reset takes nothing any more: ENODEV, but its length is looked at first', async () => {
      const { mtty, dataFd } = await target()
      await mtty.reset()

      expect(await write(dataFd, new Uint8Array(1))).toBe('ENODEV')
      expect(await write(dataFd, new Uint8Array(61))).toBe('ENOMEM')
    })
  })

  describe('VFIO_DEVICE_RESET of an mtty', () => {
    test('keeps the registers', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')
      await mtty.write(UART.scr, 0x77)

      await mtty.reset()

      expect(await mtty.read(UART.scr)).toBe(0x77)
    })
  })

  describe('closing an mtty', () => {
    const reopened = async (state: StateName) => {
      const uuid = await machine.mtty('mtty-1')
      const { group, device } = await machine.opened(uuid)
      const before = new MttyDriver(machine, device)
      const { dataFd } = await before.set(state)
      await machine.close(device)
      const mtty = new MttyDriver(machine, await machine.deviceOf(group, uuid))
      return { mtty, dataFd }
    }

    test.each(['STOP', 'PRE_COPY', 'STOP_COPY', 'RESUMING'] as const)(
      'leaves it in %s',
      async (state) => {
        const { mtty } = await reopened(state)

        expect(await mtty.state()).toBe(STATE[state])
        expect(await mtty.reset()).toBe(0)
      },
    )

    test('ends the session: ENODEV', async () => {
      const { mtty, dataFd } = await reopened('STOP_COPY')

      expect(said(await kernel.read(dataFd, new Uint8Array(8)))).toBe('ENODEV')
      await mtty.reset()
    })

    test('in PRE_COPY: STOP_COPY then opens a new session with everything', async () => {
      const { mtty } = await reopened('PRE_COPY')

      const { answer, dataFd } = await mtty.set('STOP_COPY')

      expect(answer).toBe(0)
      expect((await mtty.drain(dataFd)).length).toBe(60)
      await mtty.reset()
    })

    unless(machine.backend === 'linux', 'the kernel follows a null pointer and must be rebooted')(
      'in RESUMING: STOP kills the device, EIO',
      async () => {
        const { mtty } = await reopened('RESUMING')

        expect(said((await mtty.set('STOP')).answer)).toBe('EIO')
        expect(said((await mtty.set('RUNNING')).answer)).toBe('EIO')
      },
    )
  })
})
