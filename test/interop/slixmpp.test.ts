/**
 * slixmpp as a client of our server: Debian's 1.8.3 and, where pip can install it, the newest. Each runs over STARTTLS and direct TLS,
 * trusting the server's certificate by file. Canaries with a wrong password, an untrusted certificate and a text nobody sends must fail.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { scratchFolder } from '../helpers/peers.ts'
import { findPythons } from './pythons.ts'
import { type Running, targets } from './targets.ts'

const SCRIPT = join(import.meta.dirname, 'slixmpp/two-clients.py')
const MODULES = join(import.meta.dirname, '../../modules')
const run = promisify(execFile)

/** One line of the script's output. */
interface Check {
  readonly check: string
  readonly ok?: boolean
  readonly skipped?: string
  readonly error?: string
  readonly version?: string
  readonly mechanism?: string
}

interface Run {
  readonly status: number
  readonly checks: readonly Check[]
}

let accounts = 0

async function runClients(
  python: string,
  target: Running,
  tls: 'starttls' | 'direct',
  change: { readonly password?: string; readonly expect?: string; readonly ca?: string } = {},
): Promise<Run> {
  const [alice, bob] = [`alice${(accounts += 1)}`, `bob${accounts}`]
  await target.addUser(alice, 'a good password')
  await target.addUser(bob, 'a good password')
  const port = tls === 'direct' ? target.ports.c2sTls : target.ports.c2s
  const args = [SCRIPT, '--port', String(port), '--tls', tls, '--ca', change.ca ?? target.ca]
  args.push('--alice', `${alice}@${target.domain}`, '--bob', `${bob}@${target.domain}`)
  args.push('--password', change.password ?? 'a good password')
  if (Object.keys(change).length > 0) args.push('--timeout', '4') // a canary fails sooner
  if (change.expect !== undefined) args.push('--expect', change.expect)
  const checks = (output: string) =>
    output
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Check)
  try {
    const { stdout } = await run(python, args, {
      timeout: 90_000,
      env: { ...process.env, PYTHONWARNINGS: 'ignore' },
    })
    return { status: 0, checks: checks(stdout) }
  } catch (error) {
    const { code, stdout, stderr } = error as { code?: number; stdout?: string; stderr?: string }
    if (stdout === undefined) throw error
    const more =
      stderr === undefined || stderr === '' ? [] : [{ check: 'stderr', error: stderr.slice(-2000) }]
    return { status: code ?? 1, checks: [...checks(stdout), ...more] }
  }
}

/** Why it ended. */
const reason = (checks: readonly Check[]) => checks.find((check) => check.check === 'failure')?.error

const pythons = await findPythons(true)

for (const [server, open] of targets) {
  describe(`slixmpp against ${server}`, () => {
    let target: Running | undefined
    before(async function () {
      this.timeout(60_000)
      target = await open()
    })
    after(async function () {
      this.timeout(20_000)
      await target?.[Symbol.asyncDispose]()
    })
    const running = () => target ?? expect.fail('the server did not start')
    it('is installed', () => expect(pythons.size, 'python3-slixmpp').to.be.greaterThan(0))

    for (const [version, python] of pythons) {
      for (const tls of ['starttls', 'direct'] as const) {
        it(`${version}: two clients over ${tls}`, async function () {
          this.timeout(100_000)
          const { status, checks } = await runClients(python, running(), tls)
          expect(status, JSON.stringify(checks, undefined, 1)).to.equal(0)
          const names = checks.filter((check) => check.ok === true).map((check) => check.check)
          expect(names).to.include.members([
            'login',
            'subscription',
            'messages both ways',
            'vcard',
            'blocking',
            'logout',
          ])
          // slixmpp 1.8 binds to tls-unique whenever any -PLUS is offered, which TLS 1.3 does not have (RFC 9266 §3); its SCRAM
          // without -PLUS then looks like a downgrade (RFC 5802 §6), so that PLAIN is what is left for it.
          const plain = server === 'hermod' && version.startsWith('1.8.')
          expect(checks.find((check) => check.check === 'login')?.mechanism).to.match(
            plain ? /^PLAIN$/ : /^SCRAM-/,
          )
          const skipped = checks.filter((check) => check.skipped !== undefined).map((check) => check.check)
          // Our server offers what it has; a peer may not.
          const absent = ['carbons', 'mam'].filter(
            (name) => !['', '.ts'].some((end) => existsSync(join(MODULES, name + end))),
          )
          if (server === 'hermod')
            expect(skipped).to.deep.equal(absent.map((name) => (name === 'mam' ? 'archive' : name)))
        })
      }

      it(`${version}: a wrong password fails`, async function () {
        this.timeout(100_000)
        const { status, checks } = await runClients(python, running(), 'starttls', {
          password: 'a wrong password',
        })
        expect(status).to.equal(1)
        expect(reason(checks)).to.contain('login failed')
      })

      it(`${version}: waiting for a text nobody sends fails`, async function () {
        this.timeout(100_000)
        const { status, checks } = await runClients(python, running(), 'starttls', { expect: 'never sent' })
        expect(status).to.equal(1)
        expect(reason(checks)).to.contain('TimeoutError')
        const worked = checks.filter((check) => check.ok === true).at(-1)
        expect(worked?.check, 'everything before it worked').to.equal('messages both ways')
      })

      it(`${version}: a certificate that is not trusted fails`, async function () {
        this.timeout(100_000)
        const other = await scratchFolder('localhost')
        const { status } = await runClients(python, running(), 'direct', { ca: join(other, 'cert.pem') })
        await rm(other, { recursive: true })
        expect(status).to.equal(1)
      })
    }
  })
}
