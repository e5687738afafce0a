/**
 * profanity, a terminal client, in tmux: logs in over STARTTLS with the server's certificate trusted by file, and chats both ways with
 * a slixmpp user. What it shows is read from the screen. Canaries: a wrong password, an untrusted certificate, a text nobody sends.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect } from 'chai'
import { after, before, it } from 'mocha'
import { findProgram } from '../helpers/peers.ts'
import { findPythons } from './pythons.ts'
import { describeWith, type Running, targets } from './targets.ts'

const missing = (['profanity', 'tmux'] as const).find((name) => findProgram(`/usr/bin/${name}`) === undefined)
const [python] = [...(await findPythons(false)).values()]
const PASSWORD = 'a good password'

/** profanity in a terminal of its own, with its settings in a scratch folder. */
class Profanity implements AsyncDisposable {
  readonly #folder: string
  readonly #socket: string

  private constructor(folder: string) {
    this.#folder = folder
    this.#socket = join(folder, 'tmux')
  }

  /** `ca`: a certificate to trust besides the system's, put where OpenSSL looks for it by its hash. */
  static async start(ca: string | undefined): Promise<Profanity> {
    const folder = await mkdtemp(join(tmpdir(), 'hermod-profanity-'))
    const [certs, config] = [join(folder, 'certs'), join(folder, 'config/profanity')]
    for (const made of [certs, config]) mkdirSync(made, { recursive: true })
    if (ca !== undefined) {
      const hash = execFileSync('openssl', ['x509', '-noout', '-hash', '-in', ca], {
        encoding: 'utf8',
      }).trim()
      copyFileSync(ca, join(certs, `${hash}.0`))
    }
    writeFileSync(
      join(config, 'profrc'),
      `[connection]\ntls.certpath=${certs}\n\n[notifications]\nmessage=false\n`,
    )
    const profanity = new Profanity(folder)
    const env = ['HOME', 'XDG_CONFIG_HOME', 'XDG_DATA_HOME'].map(
      (name) =>
        `${name}=${join(folder, name === 'XDG_CONFIG_HOME' ? 'config' : name === 'XDG_DATA_HOME' ? 'data' : '')}`,
    )
    const command = ['env', ...env, 'TERM=screen', 'LC_ALL=C.UTF-8', 'profanity', '--log', 'DEBUG']
    profanity.#tmux('-f', '/dev/null', 'new-session', '-d', '-x', '160', '-y', '48', ...command)
    await profanity.shows("Type '/help'")
    return profanity
  }

  /** Types a line, as a user would. */
  type(line: string): void {
    this.#tmux('send-keys', '-l', line)
    this.#tmux('send-keys', 'Enter')
  }

  get screen(): string {
    return this.#tmux('capture-pane', '-p')
  }

  /** Waits until the screen has the text; throws with the screen after the time is over. */
  async shows(text: string, timeoutMs = 15_000): Promise<void> {
    const deadline = Date.now() + timeoutMs
    while (!this.screen.includes(text)) {
      if (Date.now() > deadline) throw new Error(`profanity does not show "${text}"\n${this.screen}`)
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }

  async login(jid: string, port: number, password: string): Promise<void> {
    this.type(`/connect ${jid} server 127.0.0.1 port ${port} tls force`)
    await this.shows('Enter password')
    this.type(password)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#tmux('kill-server')
    await rm(this.#folder, { recursive: true, force: true, maxRetries: 3 })
  }

  #tmux(...args: readonly string[]): string {
    return execFileSync('tmux', ['-S', this.#socket, ...args], { encoding: 'utf8' })
  }
}

/** The slixmpp user; `lines` are what it printed. */
class Echo implements Disposable {
  readonly lines: string[] = []
  readonly #child: ChildProcess

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  static async start(target: Running, jid: string): Promise<Echo> {
    const script = join(import.meta.dirname, 'slixmpp/echo.py')
    const args = ['--jid', jid, '--password', PASSWORD, '--ca', target.ca, '--port', String(target.ports.c2s)]
    const child = spawn(python ?? 'python3', [script, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
    const echo = new Echo(child)
    await new Promise<void>((resolve, reject) => {
      createInterface({ input: child.stdout }).on('line', (line) => {
        echo.lines.push(line)
        if (line.includes('"ready"')) resolve()
      })
      child.on('exit', (code) => reject(new Error(`the slixmpp user ended with ${code}`)))
    })
    return echo
  }

  [Symbol.dispose](): void {
    this.#child.removeAllListeners('exit')
    this.#child.kill()
  }
}

for (const [server, open] of targets) {
  describeWith(
    missing ?? (python === undefined ? 'python3-slixmpp' : undefined),
    `profanity against ${server}`,
    () => {
      let target: Running | undefined
      before(async function () {
        this.timeout(60_000)
        target = await open()
        await target.addUser('romeo', PASSWORD)
        await target.addUser('juliet', PASSWORD)
      })
      after(async function () {
        this.timeout(20_000)
        await target?.[Symbol.asyncDispose]()
      })
      const running = () => target ?? expect.fail('the server did not start')

      it('logs in and chats both ways', async function () {
        this.timeout(60_000)
        const { domain, ports, ca } = running()
        using echo = await Echo.start(running(), `juliet@${domain}`)
        await using profanity = await Profanity.start(ca)
        await profanity.login(`romeo@${domain}`, ports.c2s, PASSWORD)
        await profanity.shows('logged in successfully')
        profanity.type(`/msg juliet@${domain} soft, what light?`)
        await profanity.shows('echo: soft, what light?')
        expect(echo.lines.join('\n')).to.contain('"received": "soft, what light?"')
        profanity.type('Grüße & <Küsse>')
        await profanity.shows('echo: Grüße & <Küsse>')
        await profanity.shows('juliet@')
        // Canary: what nobody sends is not shown.
        let shown = true
        await profanity.shows('echo: it is the nightingale', 1500).catch(() => (shown = false))
        expect(shown).to.equal(false)
      })

      it('is refused with a wrong password', async function () {
        this.timeout(60_000)
        const { domain, ports, ca } = running()
        await using profanity = await Profanity.start(ca)
        await profanity.login(`romeo@${domain}`, ports.c2s, 'a wrong password')
        await profanity.shows('Login failed')
        expect(profanity.screen).not.to.contain('logged in successfully')
      })

      it('does not trust the certificate unless told so', async function () {
        this.timeout(60_000)
        const { domain, ports } = running()
        await using profanity = await Profanity.start(undefined)
        await profanity.login(`romeo@${domain}`, ports.c2s, PASSWORD)
        await profanity.shows('TLS certificate verification failed')
        expect(profanity.screen).not.to.contain('logged in successfully')
      })
    },
  )
}
