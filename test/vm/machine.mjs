// The test machine: a q35 PC in software emulation, because nested virtualisation is seldom to be
// had and this needs none. boot() runs one job in it and answers with the job's exit status.

import { execFileSync, spawn } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const here = fileURLToPath(new URL('.', import.meta.url))

// Interrupt remapping needs the split irqchip; caching mode is how a guest's IOMMU tells about maps.
const iommus = {
  intel: ['-device', 'intel-iommu,intremap=on,caching-mode=on'],
  amd: ['-device', 'amd-iommu,intremap=on'],
  none: [],
}

// What tests may count on. The chipset adds 00:1f.0, 00:1f.2 and 00:1f.3, which share one group.
const devices = [
  'edu,id=edu0,addr=04.0,dma_mask=0xffffffffffffffff',
  'edu,id=edu1,addr=05.0,dma_mask=0xffffffffffffffff',
  'pci-testdev,addr=06.0',
  'e1000e,addr=07.0,netdev=net0,romfile=',
  // Two functions behind a port of their own: one group, and a bus that can be reset.
  'pcie-root-port,id=port0,addr=08.0,chassis=1',
  'e1000e,bus=port0,addr=00.0,multifunction=on,netdev=net1,romfile=',
  // Both say that there are others: Linux groups a function that comes later by what it says itself.
  'e1000e,bus=port0,addr=00.1,multifunction=on,netdev=net2,romfile=',
]

// Devices of one machine alone, by the name that it has for them.
const moreDevices = {
  // No driver of the guest takes it; it is there for its virtual functions. On a bus that can be reset
  // they would go when that is.
  sriov: [
    'nvme-subsys,id=subsys0',
    'nvme,addr=09.0,serial=1,subsys=subsys0,sriov_max_vfs=2,sriov_vq_flexible=4,sriov_vi_flexible=2,max_ioqpairs=6,msix_qsize=7',
  ],
  // A conventional bridge: after a reset of its bus Linux waits for no link, which QEMU brings up too late.
  bus: [
    'pci-bridge,id=pci1,addr=09.0,chassis_nr=2',
    'e1000,bus=pci1,addr=01.0,romfile=',
    'e1000,bus=pci1,addr=02.0,romfile=',
  ],
}

// Cards without a network make QEMU complain; this one leads nowhere.
const networks = ['net0', 'net1', 'net2'].map((id) => `user,id=${id},restrict=on`)

const share = (path, tag, more = '') =>
  `local,path=${path.replaceAll(',', ',,')},mount_tag=${tag},security_model=none${more}`

function makeInitrd(folder) {
  const root = join(folder, 'initrd')
  mkdirSync(join(root, 'bin'), { recursive: true })
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'))
  copyFileSync(join(here, 'init.sh'), join(root, 'init'))
  const pack =
    'chmod 755 init bin/busybox && find . | cpio -o -H newc --quiet | gzip -1 > ../initrd.gz'
  execFileSync('sh', ['-c', pack], { cwd: root })
  rmSync(root, { recursive: true })
  return join(folder, 'initrd.gz')
}

function qemuArguments({ kernel, initrd, job, iommu, append, processors, devices: more }) {
  return [
    ...[
      '-machine',
      'q35,kernel-irqchip=split,accel=tcg',
      '-cpu',
      'max',
      '-smp',
      processors,
      '-m',
      '3G',
    ],
    ...['-nodefaults', '-no-reboot', '-display', 'none'],
    // The kernel talks into a file, the job to our stdout: neither breaks the other's lines.
    ...['-serial', `file:${join(job, 'console')}`, '-serial', 'stdio'],
    ...iommus[iommu],
    ...networks.flatMap((network) => ['-netdev', network]),
    ...[...devices, ...more.flatMap((name) => moreDevices[name])].flatMap((device) => [
      '-device',
      device,
    ]),
    ...['-virtfs', share('/', 'hostroot', ',readonly=on,multidevs=remap')],
    ...['-virtfs', share(job, 'job')],
    ...['-kernel', kernel, '-initrd', initrd],
    // An oops ends the machine at once: without a status, that fails the run.
    ...[
      '-append',
      `console=ttyS0 loglevel=5 intel_iommu=on no_timer_check panic=-1 oops=panic fstab=no ${append}`,
    ],
  ]
}

// The emulator dies with us, even if we are killed; and when its job says nothing for too long.
// Answers with the reason why it was killed, or null when it ended by itself.
function runQemu(args, { silenceMs, onLine }) {
  return new Promise((resolve, reject) => {
    const command = ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...args]
    const qemu = spawn('setpriv', command, { stdio: ['ignore', 'pipe', 'inherit'] })
    if (onLine) createInterface({ input: qemu.stdout }).on('line', onLine)
    else qemu.stdout.pipe(process.stdout, { end: false })
    let reason = null
    const kill = (why) => {
      reason = why
      qemu.kill('SIGKILL')
    }
    const clock = setTimeout(kill, silenceMs, `${silenceMs / 1000} s of silence`)
    qemu.stdout.on('data', () => clock.refresh())
    const signals = ['SIGINT', 'SIGTERM', 'SIGHUP']
    for (const signal of signals) process.on(signal, kill)
    qemu.on('error', reject)
    qemu.on('close', () => {
      clearTimeout(clock)
      for (const signal of signals) process.off(signal, kill)
      resolve(reason)
    })
  })
}

/**
 * Boots the machine, runs `command` (a shell script) in it and returns its exit status. Throws
 * when there is none: the machine hung, crashed or did not come up. Output goes to our stdout as
 * it comes, or line by line to `onLine`.
 */
export async function boot({
  kernel,
  command,
  environment,
  iommu,
  append,
  processors,
  devices,
  ...watch
}) {
  const folder = mkdtempSync(join(tmpdir(), 'vfiod-vm-'))
  try {
    const job = join(folder, 'job')
    mkdirSync(job)
    for (const name of ['guest.sh', 'job.sh']) copyFileSync(join(here, name), join(job, name))
    writeFileSync(join(job, 'environment'), environment)
    writeFileSync(join(job, 'command'), command)

    const args = qemuArguments({
      kernel,
      initrd: makeInitrd(folder),
      job,
      iommu,
      append,
      processors,
      devices,
    })
    const killedBy = await runQemu(args, watch)
    const status = fileIn(job, 'status')
    if (killedBy !== null) throw died(job, killedBy)
    if (status === '') throw died(job, 'no status: its kernel crashed, or it did not start')
    reportComplaints(job)
    return Number.parseInt(status, 10)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const fileIn = (job, name) =>
  existsSync(join(job, name)) ? readFileSync(join(job, name), 'utf8') : ''

function died(job, why) {
  process.stderr.write(fileIn(job, 'console').split('\n').slice(-80).join('\n'))
  return new Error(`The guest ended with ${why}`, { cause: why })
}

// A warning of the kernel's about itself deserves a look even where every test passed.
function reportComplaints(job) {
  const kernel = fileIn(job, 'console')
  if (/WARNING: CPU|BUG: /.test(kernel)) process.stderr.write(`The guest kernel says:\n${kernel}`)
}
