/** A configuration or policy that cannot be used: for people, without a stack. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
}
