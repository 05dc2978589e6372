/**
 * VF tokens: the UUID that the user of a physical function shares with the users of its virtual ones.
 * It is a secret: a process that knows it can use them, so it stands in no message and no log.
 */

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

export const isVfToken = (text: string): boolean => UUID.test(text)

/** How VFIO_GROUP_GET_DEVICE_FD takes a device with its token. */
export const nameWithToken = (name: string, token: string | undefined): string =>
  token === undefined ? name : `${name} vf_token=${token}`
