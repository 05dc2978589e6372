/**
 * Linux errno numbers and names (asm-generic/errno-base.h and errno.h), the same on x86-64 and
 * arm64. Below the kernel room an answer is `>= 0` or `-errno`; these are the numbers it is made of.
 */

export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  EPIPE: 32,
  ERANGE: 34,
  ENOSYS: 38,
  ENOMSG: 42,
  ENODATA: 61,
  EPROTO: 71,
  EOVERFLOW: 75,
  EBADFD: 77,
  EMSGSIZE: 90,
  ENOPROTOOPT: 92,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  ECONNRESET: 104,
  ENOBUFS: 105,
  ETIMEDOUT: 110,
  ETOOMANYREFS: 109,
  ECONNREFUSED: 111,
} as const

export type ErrnoName = keyof typeof ERRNO

const NAMES = new Map<number, ErrnoName>(
  Object.entries(ERRNO).map(([name, number]) => [number, name as ErrnoName]),
)

/** The name of an errno: `errnoName(16)` is `'EBUSY'`; `'errno 133'` for one the table lacks. */
export const errnoName = (errno: number): ErrnoName | `errno ${number}` =>
  NAMES.get(errno) ?? `errno ${errno}`
