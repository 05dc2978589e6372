/** The end of this process, when all that it had to do is done. */
import { bind, call } from './async-call.ts'

const exit = bind('_exit', 'void', ['int'])

/**
 * _exit(2): at once. `process.exit` waits for the threads of V8, of which one that compiles may wait for a
 * collection that the main thread no longer makes (seen in Node 24.21): such a process never ends. Bytes that
 * went to a pipe or a file are there; exit handlers do not run.
 */
export const leave = (code: number): never => {
  call(exit, code)
  throw new Error('the process goes on after its end')
}
