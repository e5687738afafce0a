/** The command line: what it prints, its exit codes, and what the server does on signals. */
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { expect } from 'chai'
import manifest from '../../package.json' with { type: 'json' }
import { Client } from '../helpers/client.ts'
import { type CommandFolder, commandFolder, type Outcome, type RunningCommand } from '../helpers/command.ts'

/** One sentence on standard error, no stack. */
function expectSentence(outcome: Outcome, code: number, sentence: RegExp | string): void {
  expect(outcome.code, outcome.stderr).to.equal(code)
  const [line = '', ...more] = outcome.stderr.trimEnd().split('\n')
  expect(more.join('\n')).to.equal('')
  if (typeof sentence === 'string') expect(line).to.equal(sentence)
  else expect(line).to.match(sentence)
}

const connect = (server: RunningCommand, folder: CommandFolder): Promise<Client> =>
  Client.connect({
    domain: 'example.org',
    ports: server.ports,
    ca: join(folder.path, 'certs/example.org.crt'),
  })

describe('command line', function () {
  this.timeout(60_000) // processes start, passwords are hashed
  let folder: CommandFolder

  beforeEach(async () => {
    folder = await commandFolder()
    await folder.configure()
  })
  afterEach(() => folder[Symbol.asyncDispose]())

  describe('usage', () => {
    it('--help explains the commands, --version tells the version; both succeed', async () => {
      const help = await folder.run(['--help'])
      expect(help.code).to.equal(0)
      for (const command of ['start', 'check', 'user', 'hooks', 'specs'])
        expect(help.stdout).to.contain(`  ${command} `)
      expect(await folder.run(['--version'])).to.include({ code: 0, stdout: `${manifest.version}\n` })
      expect((await folder.run(['user', '--help'])).stdout).to.contain('passwd')
    })

    it('wrong usage is told with exit code 2 and where help is', async () => {
      const cases: readonly (readonly [readonly string[], RegExp])[] = [
        [['stat'], /^error: unknown command 'stat'/],
        [['user', 'rename', 'a@b'], /^error: unknown command 'rename'/],
        [['--colour'], /^error: unknown option '--colour'/],
        [['user', 'add'], /^error: missing required argument 'address'/],
        [['-c'], /^error: option '-c, --config <file>' argument missing/],
      ]
      const outcomes = await Promise.all(cases.map(([args]) => folder.run(args)))
      for (const [i, { code, stderr, stdout }] of outcomes.entries()) {
        expect(code).to.equal(2)
        expect(stderr).to.match(cases[i]?.[1] ?? /never/)
        expect(stderr).to.contain('hermod --help')
        expect(stdout).to.equal('')
      }
    })
  })

  describe('check', () => {
    it('says what is good', async () => {
      expect(await folder.run(['check'])).to.deep.equal({
        code: 0,
        stdout: 'hermod.yaml: good, serves example.org, example.net\n',
        stderr: '',
      })
    })

    it('names file, line and option of each mistake: exit code 78', async () => {
      await writeFile(
        join(folder.path, 'bad.yaml'),
        'hosts: [example.org]\nlimits:\n  idle: 3 parsecs\n  depht: 7\nlog: { level: loud }\n',
      )
      const { code, stderr } = await folder.run(['-c', 'bad.yaml', 'check'])
      expect(code).to.equal(78)
      expect(stderr).to.match(/bad\.yaml:3: limits\.idle: expected a quantity such as 30s/)
      expect(stderr).to.match(/bad\.yaml:4: limits\.depht: there is no such option/)
      expect(stderr).to.match(/bad\.yaml:5: log\.level: /)
      expect(stderr).not.to.match(/^ {4}at /m)
    })

    it('names the line of a mistake in the options of a module', async () => {
      await folder.configure('modules:\n  ping: { timeout: soon }\n  telepathy: true\n')
      const { code, stderr } = await folder.run(['check'])
      expect(code).to.equal(78)
      expect(stderr).to.match(/hermod\.yaml:11: modules\.ping\.timeout: expected a quantity/)
      expect(stderr).to.match(/hermod\.yaml:12: modules\.telepathy: there is no such module/)
    })

    it('says that a module needs another one that is turned off', async () => {
      await folder.configure('modules:\n  sasl2: false\n')
      // what nobody has named goes with it
      expect(await folder.run(['check'])).to.have.property('code', 0)
      await folder.configure('modules:\n  sasl2: false\n  fast: true\n')
      expectSentence(
        await folder.run(['check']),
        78,
        /^hermod: hermod\.yaml:\d+: modules: module fast requires module sasl2, which is not enabled$/,
      )
    })

    it('names the line of broken YAML', async () => {
      await writeFile(join(folder.path, 'bad.yaml'), 'hosts:\n  - example.org\n - x: [\n')
      const { code, stderr } = await folder.run(['-c', 'bad.yaml', 'check'])
      expect(code).to.equal(78)
      const [first = '', ...more] = stderr.trimEnd().split('\n')
      expect(first).to.match(/^hermod: bad\.yaml:3: syntax: [^:]*$/)
      for (const line of more) expect(line).to.match(/^bad\.yaml:\d: syntax: /)
    })

    it('says that the file cannot be read', async () => {
      expectSentence(
        await folder.run(['-c', 'none.yaml', 'check']),
        78,
        'hermod: none.yaml: file: cannot be read (ENOENT)',
      )
    })

    it('takes the file from the option, then HERMOD_CONFIG, then hermod.yaml, then nothing', async () => {
      await writeFile(join(folder.path, 'one.yaml'), 'hosts: [one.example]\n')
      await writeFile(join(folder.path, 'two.yaml'), 'hosts: [two.example]\n')
      const env = { HERMOD_CONFIG: 'two.yaml' }
      expect((await folder.run(['-c', 'one.yaml', 'check'], { env })).stdout).to.contain(
        'one.yaml: good, serves one.',
      )
      expect((await folder.run(['check'], { env })).stdout).to.contain('two.yaml: good, serves two.example')
      const empty = await commandFolder()
      await using _ = empty
      expect((await empty.run(['check'])).stdout).to.equal('built-in configuration: good, serves localhost\n')
    })
  })

  describe('user', () => {
    it('works on the store while no server runs', async () => {
      const add = await folder.run(['user', 'add', 'romeo@example.org'], { input: 'secret\n' })
      expect(add).to.deep.equal({ code: 0, stdout: 'added romeo@example.org\n', stderr: '' })
      await folder.run(['user', 'add', 'juliet@example.net'], { input: 'secret' })
      expect((await folder.run(['user', 'list'])).stdout).to.equal('juliet@example.net\nromeo@example.org\n')
      expect((await folder.run(['user', 'list', 'example.net'])).stdout).to.equal('juliet@example.net\n')
      const info = await folder.run(['user', 'info', 'romeo@example.org'])
      expect(info.stdout).to.match(/^account: romeo@example\.org\ncreated: \d{4}-/)
      expect((await folder.run(['user', 'passwd', 'romeo@example.org'], { input: 'new\n' })).code).to.equal(0)
      expect((await folder.run(['user', 'del', 'romeo@example.org'])).code).to.equal(0)
      expectSentence(
        await folder.run(['user', 'info', 'romeo@example.org']),
        1,
        'hermod: there is no account romeo@example.org',
      )
    })

    it('refuses with a sentence: exit code 1', async () => {
      const secret = { input: 'secret\n' }
      expectSentence(
        await folder.run(['user', 'add', 'romeo@elsewhere'], secret),
        1,
        'hermod: this server does not serve elsewhere (it serves example.org, example.net)',
      )
      expectSentence(
        await folder.run(['user', 'add', 'romeo@example.org']),
        1,
        'hermod: the password is empty',
      )
      await folder.configure('', 'storage: { driver: memory }')
      expectSentence(
        await folder.run(['user', 'list']),
        1,
        'hermod: the memory store keeps nothing: there is no server to ask',
      )
    })

    it('asks the running server, which knows the change at once', async () => {
      await using server = await folder.start()
      expect((await folder.run(['user', 'add', 'romeo@example.org'], { input: 'secret\n' })).stdout).to.equal(
        'added romeo@example.org\n',
      )
      const romeo = await connect(server, folder)
      await romeo.authenticate('romeo', 'secret')
      await romeo.bind('orchard')
      expect((await folder.run(['user', 'info', 'romeo@example.org'])).stdout).to.match(
        /\nresource: orchard \(127\.0\.0\.1\)\n$/,
      )
      expect((await folder.run(['user', 'del', 'romeo@example.org'])).code).to.equal(0)
      await romeo.expectStreamError(['not-authorized'])
      expect((await folder.run(['user', 'list'])).stdout).to.equal('')
    })
  })

  it('user import: keys of another server (of RFC 5802 §5), with which the mechanism of that hash works', async () => {
    await using server = await folder.start()
    const keys = 'SCRAM-SHA-1$4096:QSXCR+Q6sek8bf92$6dlGYMOdZcOPutkcNY8U2g7vK9Y=:D+CSWLOshSulAsxiupA+qs2/fTE='
    const added = await folder.run(['user', 'import', 'user@example.org'], { input: `\n${keys}\n` })
    expect(added).to.deep.equal({ code: 0, stdout: 'added user@example.org\n', stderr: '' })
    const user = await connect(server, folder)
    await user.openStream()
    await user.startTls()
    const offers = user.features
      ?.getChild('mechanisms', 'urn:ietf:params:xml:ns:xmpp-sasl')
      ?.getChildren('mechanism')
    expect(offers?.map((one) => one.getText())).to.deep.equal(['SCRAM-SHA-1-PLUS', 'SCRAM-SHA-1', 'PLAIN'])
    await user.authenticate('user', 'pencil', 'SCRAM-SHA-1')
    expectSentence(
      await folder.run(['user', 'import', 'other@example.org'], { input: 'a password' }),
      1,
      'hermod: line 1 is not SCRAM-SHA-...$iterations:salt$StoredKey:ServerKey',
    )
  })

  describe('start', () => {
    it('ends on SIGTERM: streams with system-shutdown (RFC 6120 §4.9.3.20), exit code 0, no socket left', async () => {
      await using server = await folder.start()
      const client = await connect(server, folder)
      await client.openStream()
      server.signal('SIGTERM')
      await client.expectStreamError(['system-shutdown'])
      const { code, stderr } = await server.done
      expect(code).to.equal(0)
      expect(stderr).to.equal('')
      expect(existsSync(join(folder.path, 'data/control.sock'))).to.equal(false)
    })

    it('ends on SIGINT as well', async () => {
      await using server = await folder.start()
      server.signal('SIGINT')
      expect((await server.done).code).to.equal(0)
    })

    it('keeps what was stored over a restart, also after being killed', async () => {
      {
        await using server = await folder.start()
        await folder.run(['user', 'add', 'romeo@example.org'], { input: 'secret\n' })
        server.signal('SIGKILL')
        await server.done
      }
      await using server = await folder.start()
      const romeo = await connect(server, folder)
      await romeo.authenticate('romeo', 'secret')
      await romeo.bind('orchard')
      expect(romeo.jid).to.equal('romeo@example.org/orchard')
    })

    it('reads the configuration again on SIGHUP, without dropping streams', async () => {
      await using server = await folder.start()
      const [old, before] = [await connect(server, folder), await connect(server, folder)]
      await old.openStream()
      await before.openStream()
      await before.startTls()
      expect(before.features?.toString()).to.contain('urn:xmpp:sasl:2')
      await folder.configure('modules: { sasl2: false }')
      server.signal('SIGHUP')
      await server.line(/were read again/)
      await old.startTls()
      expect(old.features?.toString()).not.to.contain('urn:xmpp:sasl:2')
      expect(old.features?.toString()).to.contain('urn:ietf:params:xml:ns:xmpp-sasl')
    })

    it('does not use a wrong configuration on SIGHUP: says why in one line, and goes on', async () => {
      await using server = await folder.start()
      await folder.configure('limits: { idle: never }')
      server.signal('SIGHUP')
      const line = await server.line(/is not used/)
      expect(line).to.match(
        /the new configuration is not used: hermod\.yaml:10: limits\.idle: expected a quantity/,
      )
      const client = await connect(server, folder)
      await client.openStream()
      await folder.configure()
      server.signal('SIGHUP')
      await server.line(/were read again/)
    })

    it('does not use broken certificates on SIGHUP', async () => {
      await using server = await folder.start()
      const file = join(folder.path, 'certs/example.org.crt')
      const good = await readFile(file)
      await writeFile(file, 'no certificate')
      server.signal('SIGHUP')
      await server.line(/the new configuration is not used: .*certificate/)
      await writeFile(file, good)
      const client = await connect(server, folder)
      await client.openStream()
      await client.startTls()
    })

    it('is refused while another server runs on the same data', async () => {
      await using _ = await folder.start()
      expectSentence(await folder.run(['start']), 1, /^hermod: another server runs on .*data$/)
    })

    for (const listener of ['client', 'clientTls', 'http', 'https'])
      it(`says in one sentence that the port of ${listener} is in use`, async () => {
        const blocker = createServer()
        await new Promise<void>((resolve) => blocker.listen(0, '127.0.0.1', resolve))
        try {
          const { port } = blocker.address() as AddressInfo
          const text = await readFile(join(folder.path, 'hermod.yaml'), 'utf8')
          const busy = text.replace(`  ${listener}: [{ port: 0 }]`, `  ${listener}: [{ port: ${port} }]`)
          await writeFile(join(folder.path, 'hermod.yaml'), busy)
          expectSentence(
            lastLine(await folder.run(['start'])),
            1,
            `hermod: cannot listen on 127.0.0.1:${port}: another program uses this port`,
          )
        } finally {
          await new Promise((resolve) => blocker.close(resolve))
        }
      })

    it('says in one sentence that the database cannot be reached, without its password', async () => {
      const url = 'mongodb://hermod:hunter2@127.0.0.1:1/?serverSelectionTimeoutMS=300'
      await folder.configure('', `storage: { driver: mongodb, url: "${url}" }`)
      const outcome = await folder.run(['start'])
      expectSentence(outcome, 1, /^hermod: cannot use the mongodb store at 127\.0\.0\.1:1: /)
      expect(outcome.stdout + outcome.stderr).not.to.contain('hunter2')
    })

    it('says in one sentence that a certificate is missing', async () => {
      const text = await readFile(join(folder.path, 'hermod.yaml'), 'utf8')
      await writeFile(
        join(folder.path, 'hermod.yaml'),
        text.replace('tls: { folder: certs }', 'tls: { folder: certs, development: false }'),
      )
      expectSentence(
        await folder.run(['start']),
        1,
        /^hermod: there is no certificate for example\.org: put it into /,
      )
    })

    it('a wrong configuration: exit code 78, nothing started', async () => {
      await folder.configure('limits: { idle: never }')
      expectSentence(await folder.run(['start']), 78, /^hermod: hermod\.yaml:10: limits\.idle: /)
      expect(existsSync(join(folder.path, 'data'))).to.equal(false)
    })
  })

  describe('hooks and specs', () => {
    it('hooks prints the chains of each host', async () => {
      const { code, stdout } = await folder.run(['hooks'])
      expect(code).to.equal(0)
      expect(stdout).to.match(/^example\.org\n {2}client:in +guard/)
      expect(stdout).to.match(/\nexample\.net\n/)
      expect(stdout).to.match(/\n {2}session:idle +observe +ping\n/)
      expect(existsSync(join(folder.path, 'data'))).to.equal(false)
    })

    it('specs --check tells by its exit code whether generated files are up to date', async () => {
      const { code, stdout, stderr } = await folder.run(['specs', '--check'])
      if (code === 0) expect(stdout).to.contain('up to date')
      else expect(stderr).to.match(/^hermod: not up to date: .*; run npm run specs\n$/)
    })
  })
})

/** Without the warnings that come before it (certificates made for the first time). */
function lastLine(outcome: Outcome): Outcome {
  return { ...outcome, stderr: outcome.stderr.trimEnd().split('\n').slice(-1).join('') }
}
