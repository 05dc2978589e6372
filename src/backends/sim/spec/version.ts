/** Where kernels differ, the machine says which one it is. */

/** Whether `version` (6.12, 6.12.117) is `wanted` or later. */
export const isAtLeast = (version: string, wanted: `${number}.${number}`): boolean => {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const [wantedMajor = 0, wantedMinor = 0] = wanted.split('.').map(Number)
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)
}
