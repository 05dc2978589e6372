/** Causes that concern the daemon, its process, sysfs, and the processes that call it. */

import type { Cause } from './cause.ts'

export const HOST_CAUSES = {
  'fds-exhausted': {
    reason: 'LIMIT_REACHED',
    found: 'the daemon has as many open files as RLIMIT_NOFILE allows',
    fix: 'raise LimitNOFILE of the unit, or release devices, memories and streams',
  },
  'host-files-exhausted': {
    reason: 'LIMIT_REACHED',
    found: 'the host has as many open files as fs.file-max allows',
    fix: 'raise fs.file-max, or end processes that hold many',
  },
  'kernel-memory': {
    reason: 'LIMIT_REACHED',
    found: 'the kernel has no memory for it, or the memory cgroup of the daemon allows no more',
    fix: 'free memory of the host, or raise MemoryMax of the unit',
  },
  'watches-exhausted': {
    reason: 'LIMIT_REACHED',
    found: 'the user of the daemon watches as many files as fs.epoll.max_user_watches allows',
    fix: 'raise it',
  },
  bug: {
    reason: 'BUG',
    found: 'the request was malformed or its fd was not one of vfiod',
    fix: 'report it with the daemon log',
  },
  'request-unknown': {
    reason: 'UNSUPPORTED',
    found: 'the kernel or the driver does not know the request',
    fix: 'use a newer kernel, or do without',
  },
  'fd-inside-daemon': {
    reason: 'UNSUPPORTED',
    found: 'the device has no file that another process could use: it lives inside the daemon',
    fix: 'do without',
  },
  'sysfs-missing': {
    reason: 'DEVICE_GONE',
    found: 'the file is not there: the device was removed, or sysfs is out of the daemon’s sight',
    fix: 'list the devices, and mount sysfs in the container of the daemon',
  },
  'sysfs-denied': {
    reason: 'KERNEL_DENIED',
    found: 'the daemon may not use the file',
    fix: 'run it as root or with CAP_DAC_OVERRIDE, and outside of a lockdown that forbids it',
  },
  'sysfs-read-only': {
    reason: 'KERNEL_DENIED',
    found: 'sysfs is mounted read-only in the container of the daemon',
    fix: 'mount it writable (--privileged, or -v /sys:/sys)',
  },
  'sysfs-removed': {
    reason: 'DEVICE_GONE',
    found: 'the device is being removed',
    fix: 'list the devices',
  },
  'sysfs-failed': {
    reason: 'KERNEL_REFUSED',
    found: 'the kernel could not read the file',
    fix: 'see the kernel log',
  },
  'override-too-long': {
    reason: 'BAD_ARGUMENT',
    found: 'the name of the driver is longer than a page',
    fix: 'name the driver',
  },
  'driver-not-bound': {
    reason: 'BIND_FAILED',
    found: 'the device has another driver by now, or none: something besides vfiod moves it',
    fix: 'list the device, and repeat the call',
  },
  'driver-refuses': {
    reason: 'BIND_FAILED',
    found:
      'the driver refuses the device: a bridge, a device that another driver holds resources of, or one that fails',
    fix: 'see the kernel log',
  },
  'driver-defers': {
    reason: 'BIND_FAILED',
    found: 'the driver waits for another one that is not there yet',
    fix: 'load that driver, and repeat the call',
  },
  'dynamic-id': {
    reason: 'BIND_FAILED',
    found:
      'a VFIO driver has the id of the device in its list (new_id, or ids= of its module) and takes it at every probe',
    fix: 'write the id to remove_id of the driver, take it out of ids=, or name the driver that is to have the device',
  },
  'other-driver-took': {
    reason: 'BIND_FAILED',
    found: 'another driver took the device',
    fix: 'see what loads or binds it (udev, driverctl), and repeat the call',
  },
  'sriov-unsupported': {
    reason: 'UNSUPPORTED',
    found: 'the device has no driver, or one that makes no virtual functions',
    fix: 'give it the driver of its vendor, or vfio-pci with its parameter enable_sriov',
  },
  'sriov-busy': {
    reason: 'DEVICE_IN_USE',
    found: 'the device has virtual functions by now, or its driver uses it',
    fix: 'list the device, and repeat the call',
  },
  'sriov-failed': {
    reason: 'KERNEL_REFUSED',
    found:
      'the driver or the platform cannot have so many: for want of addresses or bus numbers, or by a setting of the driver',
    fix: 'ask for fewer, and see the kernel log',
  },
  'peer-exited': {
    reason: 'UNKNOWN_PEER',
    found: 'the process that connected has exited',
    fix: 'connect from a process that is still running',
  },
  'peer-other-pid-namespace': {
    reason: 'UNKNOWN_PEER',
    found: 'the calling process is in a pid namespace that the daemon does not see',
    fix: 'run the daemon in the pid namespace of the host (--pid host, hostPID: true)',
  },
  'peer-hidden': {
    reason: 'UNKNOWN_PEER',
    found: '/proc hides the calling process from the daemon (hidepid=)',
    fix: 'mount /proc without hidepid for the daemon (ProtectProc=default), or run it as root',
  },
  'peer-no-ptrace': {
    reason: 'UNKNOWN_PEER',
    found: 'the daemon lacks CAP_SYS_PTRACE, which it needs to pin a process of another user',
    fix: 'give it CAP_SYS_PTRACE, or run the client as the user of the daemon',
  },
  'peer-yama': {
    reason: 'UNKNOWN_PEER',
    found: 'Yama forbids to look at the calling process (kernel.yama.ptrace_scope)',
    fix: 'give the daemon CAP_SYS_PTRACE, or lower kernel.yama.ptrace_scope',
  },
  'peer-protected': {
    reason: 'UNKNOWN_PEER',
    found:
      'the calling process is not dumpable, is in a user namespace above that of the daemon, or is protected by a security module',
    fix: 'see the log of the security module, or connect from another process',
  },
} as const satisfies Record<string, Cause>
