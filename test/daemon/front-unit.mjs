// What systemd does before it runs the program of vfiod-front@.service, as far as a test can: the connection
// is fd 3, and SystemCallFilter= forbids io_uring.

import { fileURLToPath } from 'node:url'
import { become } from '../../dist/os/exec.js'
import { forbidIoUring } from '../../dist/os/seccomp.js'

process.env.LISTEN_PID = `${process.pid}`
process.env.LISTEN_FDS = '1'
forbidIoUring()
const answer = become(fileURLToPath(new URL('../../bin/vfiod-front', import.meta.url)), [])
throw new Error(`Cannot run the program: errno ${-answer}`)
