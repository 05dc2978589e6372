/** Causes that concern containers, groups, and the opening of devices. */

import type { Cause } from './cause.ts'

export const GROUP_CAUSES = {
  'no-such-group': {
    reason: 'NO_SUCH_GROUP',
    found: 'the host has no such IOMMU group',
    fix: 'list the groups',
  },
  'group-gone': {
    reason: 'NO_SUCH_GROUP',
    found: 'the last VFIO device of the group was removed or taken from its driver',
    fix: 'list the groups, and bind a device of it again',
  },
  'no-iommu-group': {
    reason: 'UNSUPPORTED',
    found: 'it is a no-IOMMU group: no IOMMU keeps its devices inside the memory given to them',
    fix: 'switch on the IOMMU of the host; vfiod does not use such groups',
  },
  'group-not-bound': {
    reason: 'GROUP_NOT_VIABLE',
    found: 'no device of the group is bound to a VFIO driver',
    fix: 'bind one to vfio-pci',
  },
  'group-node-missing': {
    reason: 'NODE_MISSING',
    found: 'the node of the group is not in the /dev/vfio that the daemon sees',
    fix: 'pass /dev/vfio into the container of the daemon (--device), or see what udev made of it',
  },
  'no-group-interface': {
    reason: 'UNSUPPORTED',
    found: 'the kernel has no interface for VFIO groups (CONFIG_VFIO_GROUP)',
    fix: 'use a kernel that has it',
  },
  'container-node-missing': {
    reason: 'NODE_MISSING',
    found: '/dev/vfio/vfio is not in the /dev that the daemon sees',
    fix: 'load the module vfio, and pass /dev/vfio into the container of the daemon (--device)',
  },
  'vfio-not-loaded': {
    reason: 'NO_SUCH_DRIVER',
    found: 'the module vfio is not loaded',
    fix: 'load it (modprobe vfio)',
  },
  'no-container-interface': {
    reason: 'UNSUPPORTED',
    found: 'the kernel was built without VFIO containers (CONFIG_VFIO_CONTAINER)',
    fix: 'use a kernel that has them',
  },
  'node-mode': {
    reason: 'KERNEL_DENIED',
    found:
      'the owner and mode of the node do not let the daemon open it, or its file system is mounted nodev',
    fix: 'give the user of the daemon access to the node (udev rule, group), or CAP_DAC_OVERRIDE',
  },
  'device-cgroup': {
    reason: 'KERNEL_DENIED',
    found:
      'the device cgroup of the daemon does not have the node (systemd leaves out of DeviceAllow= what was not loaded when the unit started), or a security module forbids it',
    fix: 'load the VFIO modules and restart the unit, or allow the device in the container',
  },
  'no-iommu-rawio': {
    reason: 'UNSUPPORTED',
    found: 'it is a no-IOMMU group, which takes CAP_SYS_RAWIO, and which vfiod does not use',
    fix: 'switch on the IOMMU of the host',
  },
  'group-open-elsewhere': {
    reason: 'GROUP_IN_USE',
    found: 'another process has the group open',
    fix: 'close it there',
  },
  'group-cdev-open': {
    reason: 'GROUP_IN_USE',
    found: 'a device of the group is open through its node in /dev/vfio/devices',
    fix: 'close it there',
  },
  'kernel-driver-owns': {
    reason: 'GROUP_NOT_VIABLE',
    found: 'a driver of the kernel does DMA through the group',
    fix: 'bind every device of the group to a VFIO driver, or leave it without a driver',
  },
  'firmware-region': {
    reason: 'FIRMWARE_REGION',
    found:
      'the firmware demands a 1:1 mapping for a device of the group (reserved region of kind direct), and such devices are not given to user space',
    fix: 'switch off what uses the device in the firmware setup, or ask the vendor of the platform',
  },
  'interrupts-not-isolated': {
    reason: 'INTERRUPTS_NOT_ISOLATED',
    found: 'the interrupts of its devices are not isolated: the IOMMU does not remap them',
    fix: 'switch on interrupt remapping, or set allow_unsafe_interrupts=1 of vfio_iommu_type1 (or of iommufd) and accept that a device can forge any interrupt of the host',
  },
  'iommu-too-narrow': {
    reason: 'IOMMU_TOO_NARROW',
    found: 'the IOMMU of the group does not reach an iova that is mapped already',
    fix: 'unmap what it does not reach, or use another address space',
  },
  'reserved-region-mapped': {
    reason: 'IOVA_IN_USE',
    found: 'a mapping lies in a reserved region of the group',
    fix: 'unmap it, or use another address space',
  },
  'iommu-incompatible': {
    reason: 'UNSUPPORTED',
    found:
      'the IOMMU cannot serve the devices of the group this way (another IOMMU driver, or DMA that is not cache-coherent)',
    fix: 'use an address space for this group alone; see the kernel log',
  },
  'no-iommu-domain': {
    reason: 'UNSUPPORTED',
    found: 'the IOMMU driver cannot make page tables for user space',
    fix: 'see the kernel log of the IOMMU driver',
  },
  'no-domain-left': {
    reason: 'LIMIT_REACHED',
    found: 'the IOMMU has no number left for one more address space',
    fix: 'release address spaces that are not needed, or share one',
  },
  'group-domain-in-use': {
    reason: 'GROUP_IN_USE',
    found: 'the kernel has the group in another IOMMU domain, or uses PASIDs of a device of it',
    fix: 'end that use; the kernel log and the driver say which it is',
  },
  'container-has-vaddr-invalid': {
    reason: 'VADDR_INVALID',
    found: 'the vaddr of a mapping in the address space is invalid',
    fix: 'update the vaddrs first',
  },
  'no-iommu-mixed': {
    reason: 'UNSUPPORTED',
    found: 'no-IOMMU groups and others cannot share an address space',
    fix: 'switch on the IOMMU of the host',
  },
  'mapped-memory-unusable': {
    reason: 'MEMORY_NOT_PINNABLE',
    found: 'the memory of a mapping cannot be pinned, which only this group needs',
    fix: 'see that the files of the memories were not cut and that huge pages are left, or unmap it',
  },
  'type1-not-loaded': {
    reason: 'NO_SUCH_DRIVER',
    found: 'the module vfio_iommu_type1 is not loaded',
    fix: 'load it (modprobe vfio_iommu_type1)',
  },
  'container-lost-iommu': {
    reason: 'SPACE_NOT_READY',
    found:
      'the container has no IOMMU any more: outside of vfiod the last device of its groups was taken from its driver or removed',
    fix: 'bind a device of its groups again, and map anew: its mappings are gone',
  },
  'group-not-in-container': {
    reason: 'SPACE_NOT_READY',
    found: 'the kernel has taken the group out of its container',
    fix: 'destroy the address space, and make a new one',
  },
  'group-in-container': {
    reason: 'GROUP_IN_USE',
    found: 'the group is in a container already',
    fix: 'remove it from the address space that has it',
  },
  'device-open-elsewhere': {
    reason: 'SPACE_IN_USE',
    found: 'a device of the group is still open, perhaps as an exported fd',
    fix: 'close it, and every exported fd of it',
  },
  'device-not-in-group': {
    reason: 'NO_SUCH_DEVICE',
    found: 'the group has no such device bound to a VFIO driver any more',
    fix: 'list the devices, and bind it again',
  },
  'device-not-enabled': {
    reason: 'DEVICE_GONE',
    found: 'the driver could not enable the device',
    fix: 'see the kernel log; close and bind it again, or reset it in sysfs',
  },
  'device-in-reset': {
    reason: 'DEVICE_IN_USE',
    found: 'the device is being reset or configured by another part of the kernel',
    fix: 'repeat the call',
  },
  'device-held': {
    reason: 'DEVICE_IN_USE',
    found: 'the driver lets no second user have the device',
    fix: 'close it where it is open',
  },
  'vf-token-missing': {
    reason: 'VF_TOKEN_NEEDED',
    found:
      'a virtual function whose physical function is bound to vfio-pci, or a physical function with virtual functions in use, is opened with the VF token only',
    fix: 'pass vf_token: the token with which the physical function was opened',
  },
  'vf-token-wrong': {
    reason: 'VF_TOKEN_NEEDED',
    found: 'the VF token is not the one that the physical function has',
    fix: 'pass the token with which the physical function was opened',
  },
  'vf-token-unused': {
    reason: 'BAD_ARGUMENT',
    found:
      'a VF token is given, and the device is neither a physical function of vfio-pci nor a virtual function of one',
    fix: 'leave vf_token away',
  },
} as const satisfies Record<string, Cause>
