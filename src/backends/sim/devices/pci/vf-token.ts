/**
 * The VF token: what the user of a physical function of vfio-pci shares with the users of its virtual
 * ones. vfio_pci_core_match() and vfio_pci_validate_vf_token() of the kernel's vfio_pci_core.c.
 */

import { randomUUID } from 'node:crypto'
import { VFIO_DEVICE_FEATURE_SET } from '../../../../abi/feature.ts'
import { ERRNO } from '../../../../base/errno.ts'
import { argBytes } from '../../core/user-memory.ts'
import { checkFeature, type FeatureCall } from '../../vfio/feature-call.ts'

/** Of a physical function, from when vfio-pci takes it until it leaves. */
export class VfToken {
  /** No user knows the first one. */
  uuid: string = randomUUID()
  /** Virtual functions of it that are open. */
  users = 0
}

/** The two tokens that opening a function is about; at most one of them is there. */
export interface VfTokens {
  /** Of the function itself, as a physical one. */
  readonly own: VfToken | undefined
  /** Of its physical function, where vfio-pci has that one. */
  readonly ofPhysical: VfToken | undefined
}

const ARGUMENT = 'vf_token='
const UUID_BYTES = 16
const UUID_LENGTH = 36
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** What stands behind the name of the function: the token, undefined for none, or -errno. */
const tokenIn = (options: string): string | undefined | number => {
  let token: string | undefined
  for (let at = 0; at < options.length; ) {
    if (options[at] === ' ') {
      at += 1
      continue
    }
    if (token !== undefined || !options.startsWith(ARGUMENT, at)) return -ERRNO.EINVAL
    at += ARGUMENT.length
    const uuid = options.slice(at, at + UUID_LENGTH).toLowerCase()
    if (!UUID.test(uuid)) return -ERRNO.EINVAL
    token = uuid
    at += UUID_LENGTH
  }
  return token
}

/** Compares what VFIO_GROUP_GET_DEVICE_FD was given: 1 for a match, 0 for none, or -errno. */
export const matchFunction = (name: string, given: string, tokens: VfTokens): number => {
  if (!given.startsWith(name)) return 0
  const options = given.slice(name.length)
  if (options !== '' && options[0] !== ' ') return 0
  const token = tokenIn(options)
  if (typeof token === 'number') return token
  const refused = validate(tokens, token)
  return refused < 0 ? refused : 1
}

const validate = ({ own, ofPhysical }: VfTokens, given: string | undefined): number => {
  if (ofPhysical !== undefined) return given === ofPhysical.uuid ? 0 : -ERRNO.EACCES
  if (own === undefined) return given === undefined ? 0 : -ERRNO.EINVAL
  if (own.users > 0) return given === own.uuid ? 0 : -ERRNO.EACCES
  // No virtual function is in use, so this is the token from now on.
  if (given !== undefined) own.uuid = given
  return 0
}

/** VFIO_DEVICE_FEATURE_PCI_VF_TOKEN: it can be set and never read. */
export const setVfToken = (token: VfToken | undefined, call: FeatureCall): number => {
  if (token === undefined) return -ERRNO.ENOTTY
  const checked = checkFeature(call, VFIO_DEVICE_FEATURE_SET, UUID_BYTES)
  if (checked !== 1) return checked
  const bytes = argBytes(call.payload, UUID_BYTES)
  if (bytes === undefined) return -ERRNO.EFAULT
  const hex = Buffer.from(bytes).toString('hex')
  token.uuid = hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
  return 0
}
