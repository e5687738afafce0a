/**
 * Accounts kept in the server's own store: the service `auth`. Passwords are kept as SCRAM keys only (RFC 5802 §3), for all hashes, each
 * with a salt of its own (XEP-0438 §6.2), made from a password prepared by RFC 8265. No pepper, no dictionary of bad passwords.
 */
import { c, defineModule } from '../../server/module.ts'
import { Accounts } from './accounts.ts'

export default defineModule({
  name: 'accounts',
  summary: 'Keeps user accounts in the store of the server',
  specs: [
    { rfc: 4616, sections: '2' },
    { rfc: 5802, sections: '3, 5.1, 9' },
    { rfc: 7622, sections: '3.3' },
    { rfc: 7677, sections: '4' },
    { rfc: 8265, sections: '3, 4' },
    { xep: 438, version: '0.2.0', status: 'partial', note: 'no pepper, no list of refused passwords' },
  ],
  config: c.object({
    hashes: c
      .array(c.enum(['SHA-1', 'SHA-256', 'SHA-512']))
      .min(1)
      .default(['SHA-1', 'SHA-256', 'SHA-512'])
      .describe('Hashes that passwords are kept for, each for one kind of SCRAM login'),
    iterations: c
      .number()
      .int()
      .min(4096) // RFC 7677 §4
      .max(10_000_000)
      .default(10_000)
      .describe('PBKDF2 iterations for new passwords; clients spend them at each login'),
  }),
  async setup(ctx, options) {
    const accounts = new Accounts(ctx, options)
    await accounts.open()
    ctx.provide('auth', accounts)
  },
})
