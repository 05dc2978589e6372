/**
 * What a process may no longer ask of the kernel: seccomp(2), for all of its threads and for good. It is
 * for processes that have opened all they need and read what strangers send.
 */
import { ERRNO } from '../base/errno.ts'
import { addressOf, bind, call } from './async-call.ts'
import { sys } from './libc.ts'

const prctl = bind('prctl', 'int', ['int', 'long', 'long', 'long', 'long'])

const PR_SET_DUMPABLE = 4
const PR_SET_NO_NEW_PRIVS = 38
const SECCOMP_SET_MODE_FILTER = 1
const SECCOMP_FILTER_FLAG_TSYNC = 1

/** Calls by which a process reaches files, sockets, other processes or the kernel beyond what it has open. */
const FORBIDDEN = {
  x64: {
    ...{ open: 2, openat: 257, openat2: 437, creat: 85, open_by_handle_at: 304, truncate: 76 },
    ...{ unlink: 87, unlinkat: 263, rename: 82, renameat: 264, renameat2: 316, rmdir: 84 },
    ...{ mkdir: 83, mkdirat: 258, link: 86, linkat: 265, symlink: 88, symlinkat: 266 },
    ...{ mknod: 133, mknodat: 259, chmod: 90, fchmodat: 268, chown: 92, lchown: 94, fchownat: 260 },
    ...{ socket: 41, socketpair: 53, connect: 42, bind: 49, listen: 50, accept: 43, accept4: 288 },
    ...{ execve: 59, execveat: 322, fork: 57, vfork: 58, kill: 62, ptrace: 101, kcmp: 312 },
    ...{ process_vm_readv: 310, process_vm_writev: 311, pidfd_open: 434, pidfd_getfd: 438 },
    ...{ pidfd_send_signal: 424, setns: 308, unshare: 272, mount: 165, umount2: 166, chroot: 161 },
    ...{ pivot_root: 155, bpf: 321, perf_event_open: 298, userfaultfd: 323, io_uring_setup: 425 },
    ...{ io_uring_enter: 426, io_uring_register: 427, add_key: 248, request_key: 249, keyctl: 250 },
    ...{ init_module: 175, finit_module: 313, delete_module: 176, kexec_load: 246, reboot: 169 },
    ...{ setuid: 105, setgid: 106, setreuid: 113, setregid: 114, setresuid: 117, setresgid: 119 },
    ...{ setgroups: 116, capset: 126, swapon: 167, swapoff: 168, fchmod: 91, fchown: 93 },
    ...{ tkill: 200, tgkill: 234, rt_sigqueueinfo: 129, rt_tgsigqueueinfo: 297, prlimit64: 302 },
    ...{ setpriority: 141, ioprio_set: 251, sched_setparam: 142, sched_setscheduler: 144 },
    ...{ sched_setaffinity: 203, sched_setattr: 314, process_madvise: 440, process_mrelease: 448 },
    ...{ migrate_pages: 256, move_pages: 279, shmget: 29, shmat: 30, msgget: 68, semget: 64 },
    ...{ mq_open: 240 },
  },
  arm64: {
    ...{
      openat: 56,
      openat2: 437,
      open_by_handle_at: 265,
      truncate: 45,
      unlinkat: 35,
      renameat: 38,
    },
    ...{ renameat2: 276, mkdirat: 34, linkat: 37, symlinkat: 36, mknodat: 33, fchmodat: 53 },
    ...{ fchownat: 54, socket: 198, socketpair: 199, connect: 203, bind: 200, listen: 201 },
    ...{ accept: 202, accept4: 242, execve: 221, execveat: 281, kill: 129, ptrace: 117, kcmp: 272 },
    ...{ process_vm_readv: 270, process_vm_writev: 271, pidfd_open: 434, pidfd_getfd: 438 },
    ...{ pidfd_send_signal: 424, setns: 268, unshare: 97, mount: 40, umount2: 39, chroot: 51 },
    ...{ pivot_root: 41, bpf: 280, perf_event_open: 241, userfaultfd: 282, io_uring_setup: 425 },
    ...{ io_uring_enter: 426, io_uring_register: 427, add_key: 217, request_key: 218, keyctl: 219 },
    ...{ init_module: 105, finit_module: 273, delete_module: 106, kexec_load: 104, reboot: 142 },
    ...{ setuid: 146, setgid: 144, setreuid: 145, setregid: 143, setresuid: 147, setresgid: 149 },
    ...{ setgroups: 159, capset: 91, swapon: 224, swapoff: 225, fchmod: 52, fchown: 55 },
    ...{ tkill: 130, tgkill: 131, rt_sigqueueinfo: 138, rt_tgsigqueueinfo: 240, prlimit64: 261 },
    ...{ setpriority: 140, ioprio_set: 30, sched_setparam: 118, sched_setscheduler: 119 },
    ...{ sched_setaffinity: 122, sched_setattr: 274, process_madvise: 440, process_mrelease: 448 },
    ...{ migrate_pages: 238, move_pages: 239, shmget: 194, shmat: 196, msgget: 186, semget: 190 },
    ...{ mq_open: 180 },
  },
} as const

/** asm/unistd.h and linux/audit.h, of the two machines that are supported. */
const MACHINES = {
  x64: { seccomp: 317, clone: 56, clone3: 435, audit: 0xc000_003e },
  arm64: { seccomp: 277, clone: 220, clone3: 435, audit: 0xc000_00b7 },
} as const

/** Of the numbers of x86-64 those of x32, which are the same calls once more. */
const X32_BIT = 0x4000_0000
const CLONE_THREAD = 0x1_0000

/** linux/filter.h and linux/seccomp.h. */
const LOAD = 0x20
const IF_EQUAL = 0x15
const IF_AT_LEAST = 0x35
const IF_ANY_BIT = 0x45
const RETURN = 0x06
const ALLOW = 0x7fff_0000
const KILL_PROCESS = 0x8000_0000
const errnoAnswer = (errno: number): number => 0x0005_0000 | errno

/** struct seccomp_data. */
const AT = { number: 0, machine: 4, firstArgument: 16 } as const

type Instruction = readonly [code: number, jumpTrue: number, jumpFalse: number, value: number]

type Machine = keyof typeof MACHINES

const REFUSE: Instruction = [RETURN, 0, 0, errnoAnswer(ERRNO.EPERM)]
const UNKNOWN: Instruction = [RETURN, 0, 0, errnoAnswer(ERRNO.ENOSYS)]

/** Leaves the number of the call in the accumulator. */
const head = (machine: Machine): Instruction[] => [
  [LOAD, 0, 0, AT.machine],
  [IF_EQUAL, 1, 0, MACHINES[machine].audit],
  [RETURN, 0, 0, KILL_PROCESS],
  [LOAD, 0, 0, AT.number],
  [IF_AT_LEAST, 0, 1, X32_BIT],
  REFUSE,
]

const forbidden = (machine: Machine): Instruction[] => {
  const { clone, clone3 } = MACHINES[machine]
  return [
    ...head(machine),
    // Its flags are in memory; glibc then makes threads by clone(2).
    [IF_EQUAL, 0, 1, clone3],
    UNKNOWN,
    ...Object.values(FORBIDDEN[machine]).flatMap((number): Instruction[] => [
      [IF_EQUAL, 0, 1, number],
      REFUSE,
    ]),
    [IF_EQUAL, 0, 3, clone],
    [LOAD, 0, 0, AT.firstArgument],
    [IF_ANY_BIT, 1, 0, CLONE_THREAD],
    REFUSE,
    [RETURN, 0, 0, ALLOW],
  ]
}

const encoded = (instructions: readonly Instruction[]): Uint8Array => {
  const bytes = Buffer.alloc(instructions.length * 8)
  for (const [index, [code, jumpTrue, jumpFalse, value]] of instructions.entries()) {
    bytes.writeUInt16LE(code, index * 8)
    bytes.writeUInt8(jumpTrue, index * 8 + 2)
    bytes.writeUInt8(jumpFalse, index * 8 + 3)
    bytes.writeUInt32LE(value, index * 8 + 4)
  }
  return bytes
}

/** Lays a filter over all threads of this process; 0 or -errno. */
const install = (programOf: (machine: Machine) => readonly Instruction[]): number => {
  const machine = process.arch as Machine
  if (MACHINES[machine] === undefined) return -ERRNO.ENOSYS
  const privileges = call(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
  if (privileges < 0) return privileges
  const filter = encoded(programOf(machine))
  const shown = new BigUint64Array([BigInt(filter.length / 8), addressOf(filter)])
  const at = Number(addressOf(new Uint8Array(shown.buffer)))
  const { seccomp } = MACHINES[machine]
  const answer = sys.syscall(seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, at)
  // The kernel has copied both by now; until then they are held from here.
  return filter.length > 0 && shown.length > 0 ? answer : -ERRNO.EINVAL
}

/**
 * From here on this process opens no file, makes and connects no socket, starts and looks at no other
 * process; what it has open it keeps. Refused calls answer EPERM. 0 or -errno: where it fails, nothing is
 * forbidden. It must have been started after `forbidIoUring`.
 */
export const forbidTheRest = (): number => {
  // Others of the same user cannot look into it, nor does it leave a core.
  call(prctl, PR_SET_DUMPABLE, 0, 0, 0, 0)
  return install(forbidden)
}

/**
 * Processes that are started from here on have no io_uring, which would be a way around `forbidTheRest`:
 * libuv makes a ring as it starts. This process keeps the one it has. 0 or -errno.
 */
export const forbidIoUring = (): number =>
  install((machine) => [
    ...head(machine),
    [IF_EQUAL, 0, 1, FORBIDDEN[machine].io_uring_setup],
    UNKNOWN,
    [RETURN, 0, 0, ALLOW],
  ])
