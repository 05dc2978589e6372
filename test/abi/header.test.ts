/**
 * src/abi against the uAPI headers of this machine, by its compiler: every export is asked about,
 * none is listed by hand. A name that a header does not declare cannot be checked against it; it
 * is printed, and for the versions below it has to be in the list of what that version lacks.
 */

import { beforeAll, describe, expect, test } from 'vitest'
import { type Answers, ask, findHeaders, hasCompiler, type Question } from './c-headers.ts'
import { constants, requests, structs } from './exports.ts'

/** What 6.12 lacks: every name that came later. */
const AFTER_6_12 = [
  'IOMMU_HWPT_ALLOC_PASID',
  'IOMMU_HWPT_DATA_ARM_SMMUV3',
  'IOMMU_HW_INFO_FLAG_INPUT_TYPE',
  'IOMMU_HW_INFO_TYPE_ARM_SMMUV3',
  'IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV',
  'IOMMU_HW_QUEUE_ALLOC',
  'IOMMU_IOAS_CHANGE_PROCESS',
  'IOMMU_IOAS_MAP_FILE',
  'IOMMU_VDEVICE_ALLOC',
  'IOMMU_VEVENTQ_ALLOC',
  'IOMMU_VIOMMU_ALLOC',
  'VFIO_DEVICE_ATTACH_PASID',
  'VFIO_DEVICE_BIND_FLAG_TOKEN',
  'VFIO_DEVICE_DETACH_PASID',
  'VFIO_DEVICE_FEATURE_DMA_BUF',
  'VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2',
  'VFIO_PRECOPY_INFO_REINIT',
  'struct iommu_hw_queue_alloc',
  'struct iommu_ioas_change_process',
  'struct iommu_ioas_map_file',
  'struct iommu_vdevice_alloc',
  'struct iommu_veventq_alloc',
  'struct iommu_viommu_alloc',
  'struct vfio_device_feature_dma_buf',
  'struct vfio_region_dma_range',
  'vfio_device_attach_iommufd_pt.pasid',
  'vfio_device_bind_iommufd.token_uuid_ptr',
  'vfio_device_detach_iommufd_pt.pasid',
]

/** Names of 6.15 that reached 6.12.y: an early 6.12 lacks all of them, a late one none. */
const BACKPORTED_TO_6_12 = [
  'IOMMU_HW_CAP_PCI_PASID_EXEC',
  'IOMMU_HW_CAP_PCI_PASID_PRIV',
  'iommu_hw_info.__reserved[0]',
  'iommu_hw_info.__reserved[1]',
  'iommu_hw_info.__reserved[2]',
  'iommu_hw_info.out_max_pasid_log2',
]

/**
 * What 6.1, the system header of Debian 12, lacks in vfio.h, the names of padding included. It has
 * no iommufd.h at all.
 */
const VFIO_AFTER_6_1 = [
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
  'VFIO_DEVICE_ATTACH_PASID',
  'VFIO_DEVICE_BIND_FLAG_TOKEN',
  'VFIO_DEVICE_BIND_IOMMUFD',
  'VFIO_DEVICE_DETACH_IOMMUFD_PT',
  'VFIO_DEVICE_DETACH_PASID',
  'VFIO_DEVICE_FEATURE_BUS_MASTER',
  'VFIO_DEVICE_FEATURE_CLEAR_MASTER',
  'VFIO_DEVICE_FEATURE_DMA_BUF',
  'VFIO_DEVICE_FEATURE_MIG_DATA_SIZE',
  'VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2',
  'VFIO_DEVICE_FEATURE_SET_MASTER',
  'VFIO_DEVICE_FLAGS_CDX',
  'VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP',
  'VFIO_DEVICE_STATE_PRE_COPY',
  'VFIO_DEVICE_STATE_PRE_COPY_P2P',
  'VFIO_MIGRATION_PRE_COPY',
  'VFIO_MIG_GET_PRECOPY_INFO',
  'VFIO_PCI_ATOMIC_COMP128',
  'VFIO_PCI_ATOMIC_COMP32',
  'VFIO_PCI_ATOMIC_COMP64',
  'VFIO_PCI_DEVID_NOT_OWNED',
  'VFIO_PCI_DEVID_OWNED',
  'VFIO_PCI_HOT_RESET_FLAG_DEV_ID',
  'VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED',
  'VFIO_PRECOPY_INFO_REINIT',
  'struct vfio_device_attach_iommufd_pt',
  'struct vfio_device_bind_iommufd',
  'struct vfio_device_detach_iommufd_pt',
  'struct vfio_device_feature_bus_master',
  'struct vfio_device_feature_dma_buf',
  'struct vfio_device_feature_mig_data_size',
  'struct vfio_device_info_cap_pci_atomic_comp',
  'struct vfio_precopy_info',
  'struct vfio_region_dma_range',
  'vfio_device_info.pad',
  'vfio_device_ioeventfd.reserved',
  'vfio_iommu_type1_info.pad',
]

const isIommufd = (name: string) => /^(struct )?iommu(fd)?_/i.test(name)

const FIELD_BYTES = { u8: 1n, u16: 2n, u32: 4n, s32: 4n, u64: 8n } as const

/** Several codecs may share a C name: the forms of a struct that grew. */
const forms = new Map(
  [...structs.values()].map(({ cName }) => [
    cName,
    [...structs.values()].filter((struct) => struct.cName === cName),
  ]),
)

const structQuestions: readonly Question[] = [...forms].flatMap(([cName, codecs]) => {
  const fields = new Set(codecs.flatMap(({ types }) => Object.keys(types)))
  return [
    { name: `struct ${cName}`, expressions: [`sizeof(struct ${cName})`] },
    ...[...fields].map((field) => {
      const member = `((struct ${cName} *)0)->${field}`
      return {
        name: `${cName}.${field}`,
        expressions: [
          `offsetof(struct ${cName}, ${field})`,
          `sizeof(${member})`,
          // 1 for a signed type; compared with 1 so that a pointer type compiles too.
          `(__typeof__(${member}))-1 < (__typeof__(${member}))1`,
        ],
      }
    }),
  ]
})

const numberQuestions: readonly Question[] = [
  ...constants.keys(),
  ...[...requests.values()].map(({ cName }) => cName),
].map((name) => ({ name, expressions: [name] }))

/** A struct that is not declared stands for its fields. */
function summary(lacking: readonly string[]): readonly string[] {
  const whole = lacking.filter((name) => name.startsWith('struct ')).map((name) => name.slice(7))
  return lacking.filter((name) => !whole.some((cName) => name.startsWith(`${cName}.`))).sort()
}

const versionNumber = (version: string) => {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  return major * 1000 + minor
}

const found = findHeaders()
const canSkip = process.env.CI === undefined || process.env.CI === ''

if (canSkip && !hasCompiler()) {
  test.skip('the header check needs cc: no number was compared with a header', () => {})
} else {
  test('there is a compiler and a header to check against', () => {
    expect(hasCompiler()).toBe(true)
    expect(found.length).toBeGreaterThan(0)
  })
}

test.runIf(!canSkip)('there are the headers of 6.12, where CI is to check against them', () => {
  expect(found.map(({ version }) => version)).toContain('6.12')
})

const titled = found.map((headers) => [headers.version, headers.directory, headers] as const)

describe.runIf(hasCompiler()).each(titled)('the headers of %s in %s', (_, __, headers) => {
  let answers: Answers
  let lacking: readonly string[]

  beforeAll(() => {
    answers = ask(headers, [...structQuestions, ...numberQuestions])
    lacking = summary(answers.lacking)
    console.log(
      [
        `${headers.directory} (${headers.version}): ${answers.values.size} answers.`,
        `Not there: ${headers.absent.join(', ') || 'no header'}.`,
        `Not declared, not checked: ${lacking.length === 0 ? 'nothing' : ''}`,
        ...lacking.map((name) => `  ${name}`),
      ].join('\n'),
    )
  })

  test('declare every struct with the size of a codec', () => {
    for (const [cName, codecs] of forms) {
      const size = answers.values.get(`struct ${cName}`)?.[0]
      if (size === undefined) continue
      const complete = codecs.filter(({ types }) =>
        Object.keys(types).every((field) => answers.values.has(`${cName}.${field}`)),
      )

      // A codec with fields that the header lacks is a longer form, of another header.
      const sizes = complete.map((codec) => BigInt(codec.size))

      if (sizes.length > 0) expect(sizes, cName).toContain(size)
    }
  })

  test('declare every field at its offset, with its width and sign', () => {
    for (const { cName, types, offsets } of structs.values()) {
      for (const [field, type] of Object.entries<keyof typeof FIELD_BYTES>(types)) {
        const answer = answers.values.get(`${cName}.${field}`)
        if (answer === undefined) continue

        const expected = [BigInt(offsets[field] ?? -1), FIELD_BYTES[type], type === 's32' ? 1n : 0n]

        expect(answer, `${cName}.${field}`).toEqual(expected)
      }
    }
  })

  test('define every constant with its value', () => {
    for (const [name, value] of constants) {
      const answer = answers.values.get(name)?.[0]
      if (answer === undefined) continue

      // As 32 bits, because C shifts 1 into the sign bit of an int.
      expect(BigInt.asUintN(32, answer), name).toBe(BigInt.asUintN(32, BigInt(value)))
    }
  })

  test('define every request with its number', () => {
    for (const { cName, number } of requests.values()) {
      const answer = answers.values.get(cName)?.[0]
      if (answer === undefined) continue

      expect(answer, cName).toBe(BigInt(number))
    }
  })

  test('lack what came after them and nothing else', () => {
    if (headers.version === '6.12') {
      const isEarly = BACKPORTED_TO_6_12.some((name) => lacking.includes(name))
      const expected = isEarly ? [...AFTER_6_12, ...BACKPORTED_TO_6_12] : AFTER_6_12
      expect(lacking).toEqual([...expected].sort())
    } else if (headers.version === '6.1') {
      expect(lacking.filter((name) => !isIommufd(name))).toEqual(VFIO_AFTER_6_1)
    } else if (versionNumber(headers.version) > versionNumber('6.12')) {
      // 6.13 reserved the number of nesting and took its name away.
      const known = new Set([...AFTER_6_12, 'VFIO_TYPE1_NESTING_IOMMU'])
      expect(lacking.filter((name) => !known.has(name))).toEqual([])
    }
  })
})
