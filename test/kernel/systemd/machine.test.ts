// The machine of this folder has systemd as PID 1, the host's own, with nothing enabled.

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

test('the systemd machine has systemd as PID 1', () => {
  expect(readFileSync('/proc/1/comm', 'utf8').trim()).toBe('systemd')
})

test('the systemd machine runs a unit and says how it ended', () => {
  const unit = ['--wait', '--quiet', '--property=Type=oneshot', '/bin/true']

  expect(() => execFileSync('systemd-run', unit)).not.toThrow()
})
