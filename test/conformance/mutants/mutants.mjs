// Twenty-four errors of one line each, as a person might make them: a file of src/backends/sim, what
// stands there, and what stands there instead. Each must be seen by the golden traces.

export const mutants = [
  {
    name: 'mapping over a mapping is EINVAL',
    file: 'type1/map.ts',
    from: 'if (overlap) return -ERRNO.EEXIST',
    to: 'if (overlap) return -ERRNO.EINVAL',
  },
  {
    name: 'the end of a range is one too far',
    file: 'type1/iova-ranges.ts',
    from: 'last: hole.start - 1n',
    to: 'last: hole.start',
  },
  {
    name: 'the number of mappings is not given back',
    file: 'type1/type1.ts',
    from: 'this.dmaAvail += 1',
    to: 'this.dmaAvail += 0',
  },
  {
    name: 'pages stay charged after unmapping',
    file: 'type1/pinning.ts',
    from: 'mapping.owner.lockedPages -= mapping.pages',
    to: 'mapping.owner.lockedPages -= 0n',
  },
  {
    name: 'the limit of locked memory is one page more',
    file: 'type1/pinning.ts',
    from: 'lockedPages + pages <= limit / PAGE_SIZE',
    to: 'lockedPages + pages <= limit / PAGE_SIZE + 1n',
  },
  {
    name: 'a v1 container removes what begins before the range',
    file: 'type1/unmap.ts',
    from: 'found[0].iova < range.start) return 0n',
    to: 'found[0].iova < 0n) return 0n',
  },
  {
    name: 'a mapping may be cut at the end of a range',
    file: 'type1/unmap.ts',
    from: '(last && last.last !== range.last)',
    to: '(last && last.last < range.last)',
  },
  {
    name: 'an invalid vaddr may be invalidated again',
    file: 'type1/unmap.ts',
    from: 'if (found.some((mapping) => mapping.isVaddrInvalid)) return',
    to: 'if (found.every((mapping) => mapping.isVaddrInvalid && false)) return',
  },
  {
    name: 'a group may come while a vaddr is invalid',
    file: 'type1/type1.ts',
    from: 'if (this.vaddrInvalidCount > 0) return -ERRNO.EBUSY',
    to: 'if (this.vaddrInvalidCount > 9) return -ERRNO.EBUSY',
  },
  {
    name: 'reading a dirty bitmap does not clear what is behind it',
    file: 'type1/dirty-report.ts',
    from: 'if (type1.hasPhysical && mapping.isIommuMapped) dirty.setAll()',
    to: 'if (mapping.isIommuMapped) dirty.clear()',
  },
  {
    name: 'GET_INFO wants one byte more for its capabilities',
    file: 'type1/info.ts',
    from: 'info.argsz >= size + chain.length',
    to: 'info.argsz > size + chain.length',
  },
  {
    name: 'a container may have two backends',
    file: 'container.ts',
    from: 'if (this.groups.size === 0 || this.type1) return -ERRNO.EINVAL',
    to: 'if (this.groups.size === 0) return -ERRNO.EINVAL',
  },
  {
    name: 'leaving a container while a device is open',
    file: 'group.ts',
    from: 'group.containerUsers !== 1) return -ERRNO.EBUSY',
    to: 'group.containerUsers < 1) return -ERRNO.EBUSY',
  },
  {
    name: 'a group can be opened twice',
    file: 'group.ts',
    from: 'this.openedFile !== undefined) return -ERRNO.EBUSY',
    to: 'this.isGone) return -ERRNO.EBUSY',
  },
  {
    name: 'a stream that is too long is EINVAL',
    file: 'mtty/data-files.ts',
    from: '> this.#data.length) return -ERRNO.ENOMEM',
    to: '> this.#data.length) return -ERRNO.EINVAL',
  },
  {
    name: 'a session survives a reset',
    file: 'mtty/migration.ts',
    from: 'if (file) file.isOrphan = true',
    to: 'if (file) file.isOrphan = false',
  },
  {
    name: 'a refused state answers the state that is',
    file: 'migration-feature.ts',
    from: 'const written = reply(mig.device_state, -1)',
    to: 'const written = reply(ops.getState(), -1)',
  },
  {
    name: 'a probe is not told from a call',
    file: 'feature-call.ts',
    from: 'if ((flags & VFIO_DEVICE_FEATURE_PROBE) !== 0) return 0',
    to: 'if ((flags & VFIO_DEVICE_FEATURE_PROBE) !== 0) return -ERRNO.EINVAL',
  },
  {
    name: 'INTx does not mask itself',
    file: 'pci/intx.ts',
    from: '    this.#isMasked = true\n    this.#enabled.trigger',
    to: '    this.#isMasked = false\n    this.#enabled.trigger',
  },
  {
    name: 'a range of interrupts may end one beyond the last',
    file: 'irq-set.ts',
    from: 'start + count > vectors(index)',
    to: 'start + count > vectors(index) + 1',
  },
  {
    name: 'an iommufd mapping without access is EOPNOTSUPP',
    file: 'iommufd/map-requests.ts',
    from: '(flags & ACCESS_FLAGS) === 0 ? -ERRNO.EINVAL',
    to: '(flags & ACCESS_FLAGS) === 0 ? -ERRNO.EOPNOTSUPP',
  },
  {
    name: 'iommufd may choose the first page',
    file: 'iommufd/iova-allocation.ts',
    from: 'const EVERYTHING: Range<bigint> = { start: PAGE_SIZE,',
    to: 'const EVERYTHING: Range<bigint> = { start: 0n,',
  },
  {
    name: 'a hole of just the length is too short',
    file: 'iommufd/iova-allocation.ts',
    from: 'last - at < wanted.length - 1n',
    to: 'last - at < wanted.length',
  },
  {
    name: 'the shortest iommufd struct is too short',
    file: 'iommufd/command.ts',
    from: 'if (userSize < min)',
    to: 'if (userSize <= min)',
  },
]
