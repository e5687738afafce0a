/** Runs the dialogues of this folder against our own server over TCP, TLS and WebSocket. ONLY='file: title' runs some of them. */
import { startServer } from '../helpers/server.ts'
import { scenarioSuite } from './suite.ts'

// All clients of all dialogues come from one address.
const config = { limits: { newConnectionsPerMinute: 100_000 } }
// Each dialogue makes accounts of its own, so that deriving keys would take longer than everything else.
// Notifications come one by one, so that dialogues need not wait.
const modules = { accounts: { iterations: 4096 }, push: { interval: '0s' } }

// Registration is closed by default, and a second login from one address must not wait in tests of failed logins.
scenarioSuite(
  'hermod',
  async () =>
    Object.assign(await startServer({ config, modules, components: true }), { name: 'hermod' as const }),
  process.env['ONLY'],
)
