/** A configuration or policy that cannot be used: for people, without a stack. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  /** Of the system call that failed: `ENOENT`. */
  readonly code: string | undefined

  constructor(message: string, code?: string) {
    super(message)
    this.code = code
  }
}

/** The exit code for it, of sysexits.h: a service manager need not try again. */
export const EX_CONFIG = 78
