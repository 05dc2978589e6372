/** Devices of the simulator that behave as mlx5 does, as text of a machine file. */

export const SOURCE = '0000:00:09.0'
export const TARGET = '0000:00:0a.0'

export const mlx5Like = (
  address: string,
  group: number,
  state: { readonly bytes: number; readonly dirtyPagesPerStep: number },
): string => `
[[functions]]
address = "${address}"
kind = "mlx5-like"
group = ${group}
bound_driver = "vfio-pci"
state = { bytes = ${state.bytes}, initial_bytes = 0x10_0000, dirty_pages_per_step = ${state.dirtyPagesPerStep} }
`
