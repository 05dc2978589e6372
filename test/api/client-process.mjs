// A client in a process of its own, told by its standard input what to call. One line of JSON in,
// one line of JSON out.

import { createInterface } from 'node:readline'
import koffi from 'koffi'
import { connect } from '../../dist/client/client.js'
import { receiveFds, sendFds } from '../../dist/client/fd-channel.js'

const [socket] = process.argv.slice(2)
const connections = new Map()
const connection = (number = 0) => {
  if (!connections.has(number)) connections.set(number, connect({ socket }))
  return connections.get(number)
}

const commands = {
  // Of a stream of answers, the first; a stream of requests has one.
  call: async ({ service, method, request, headers, on }) => {
    const given = method === 'writeSession' ? [request] : request
    const answer = connection(on)[service][method](given, { headers: headers ?? {} })
    if (!(Symbol.asyncIterator in answer)) return answer
    for await (const message of answer) return message
  },
  receiveFds: async ({ ticket }) => ({ fds: (await receiveFds(ticket)).fds.length }),
  sendFds: ({ ticket, fds }) => sendFds(ticket, fds),
  disconnect: ({ on }) => {
    connection(on).close()
    connections.delete(on ?? 0)
  },
  become: ({ id }) => {
    process.setgroups([])
    process.setgid(id)
    process.setuid(id)
  },
  // Begins an upload that never ends.
  upload: ({ name }) => {
    async function* requests() {
      yield { name }
      await new Promise(() => undefined)
    }
    connection()
      .migration.writeSession(requests())
      .catch(() => undefined)
  },
  // Becomes another program, with the same pid and every fd that survives an exec.
  exec: () =>
    koffi.load(null).func('execv', 'int', ['str', 'char **'])('/bin/sleep', ['sleep', '60', null]),
}

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...parameters } = JSON.parse(line)
  let answer
  try {
    answer = { result: (await commands[command](parameters)) ?? null }
  } catch (error) {
    const { status, reason, message } = error
    answer = { error: { status, reason, message } }
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}
