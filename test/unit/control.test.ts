/** The control socket: who may open it, what is answered, what becomes of sockets left behind. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, statSync } from 'node:fs'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { inspect } from 'node:util'
import { expect } from 'chai'
import { askServer, type ControlAnswer, type ControlRequest, serveControl } from '../../server/control.ts'
import { recordingLog } from '../helpers/sink.ts'
import { tempFolder } from '../helpers/temp.ts'

const echo = async (request: ControlRequest): Promise<ControlAnswer> =>
  request.command === 'refuse' ? { error: 'no' } : { lines: [request.command, ...request.args] }

/** What a server says to raw bytes until it closes. */
async function raw(path: string, text: string): Promise<string> {
  const socket = connect(path)
  socket.write(text)
  let answer = ''
  socket.on('data', (chunk) => (answer += chunk.toString()))
  socket.on('error', () => undefined) // the other side may close first
  await new Promise((resolve) => socket.on('close', resolve))
  return answer
}

const failureOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'no failure',
    (error: Error) => error.message,
  )

/** Another process that serves the socket. */
async function otherProcess(
  path: string,
): Promise<{ kill(): Promise<void>; readonly pid: number | undefined }> {
  const module = new URL('../../server/control.ts', import.meta.url).href
  const code = `import { serveControl } from ${JSON.stringify(module)}
    const nothing = () => undefined
    const log = { debug: nothing, info: nothing, warn: nothing, error: nothing }
    await serveControl(${JSON.stringify(path)}, async () => ({ lines: [String(process.pid)] }), log)
    console.log('ready')
    setInterval(nothing, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  for await (const line of createInterface({ input: child.stdout })) if (line === 'ready') break
  return {
    pid: child.pid,
    async kill() {
      const gone = once(child, 'exit')
      child.kill('SIGKILL')
      await gone
    },
  }
}

describe('control socket', () => {
  it('answers a request with lines or with an error', async () => {
    await using folder = await tempFolder()
    const path = join(folder.path, 'data/control.sock')
    await using _ = await serveControl(path, echo, recordingLog())
    expect(await askServer(path, { command: 'user.list', args: ['a b', 'ψ\n"'] })).to.deep.equal({
      lines: ['user.list', 'a b', 'ψ\n"'],
    })
    expect(await askServer(path, { command: 'refuse', args: [] })).to.deep.equal({ error: 'no' })
  })

  it('serves many at the same time', async () => {
    await using folder = await tempFolder()
    const path = join(folder.path, 'control.sock')
    await using _ = await serveControl(path, echo, recordingLog())
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) => askServer(path, { command: String(i), args: [] })),
    )
    expect(answers.map((a) => (a !== undefined && 'lines' in a ? a.lines[0] : ''))).to.deep.equal(
      Array.from({ length: 20 }, (_, i) => String(i)),
    )
  })

  it('says that nobody is there: no socket, no folder', async () => {
    await using folder = await tempFolder()
    expect(await askServer(join(folder.path, 'control.sock'), { command: 'x', args: [] })).to.equal(undefined)
    expect(await askServer(join(folder.path, 'none/control.sock'), { command: 'x', args: [] })).to.equal(
      undefined,
    )
  })

  it('may be opened by the user of the server only: mode 0600, whatever the mask', async () => {
    await using folder = await tempFolder()
    const path = join(folder.path, 'control.sock')
    const mask = process.umask(0)
    try {
      await using _ = await serveControl(path, echo, recordingLog())
      expect((statSync(path).mode & 0o777).toString(8)).to.equal('600') // oxlint-disable-line no-bitwise -- a mode is made of bits
      expect(process.umask()).to.equal(0)
    } finally {
      process.umask(mask)
    }
  })

  it('is gone when the server has stopped, with its open connections', async () => {
    await using folder = await tempFolder()
    const path = join(folder.path, 'control.sock')
    const server = await serveControl(path, echo, recordingLog())
    const idle = connect(path)
    await once(idle, 'connect')
    const closed = once(idle, 'close')
    await server[Symbol.asyncDispose]()
    await closed
    expect(existsSync(path)).to.equal(false)
    expect(await askServer(path, { command: 'x', args: [] })).to.equal(undefined)
  })

  it('replaces a socket that a killed process left behind', async () => {
    await using folder = await tempFolder()
    const path = join(folder.path, 'control.sock')
    const other = await otherProcess(path)
    await other.kill()
    expect(existsSync(path)).to.equal(true)
    await using _ = await serveControl(path, echo, recordingLog())
    expect(await askServer(path, { command: 'x', args: [] })).to.deep.equal({ lines: ['x'] })
  })

  it('is refused while another process serves it, which is not disturbed', async () => {
    await using folder = await tempFolder()
    const path = join(folder.path, 'control.sock')
    const other = await otherProcess(path)
    try {
      expect(await failureOf(serveControl(path, echo, recordingLog()))).to.equal(
        `another server runs on ${folder.path}`,
      )
      expect(await askServer(path, { command: 'x', args: [] })).to.deep.equal({ lines: [String(other.pid)] })
    } finally {
      await other.kill()
    }
  })

  it('says in a sentence why it cannot be made', async () => {
    await using folder = await tempFolder()
    const long = join(folder.path, 'x'.repeat(100), 'control.sock')
    expect(await failureOf(serveControl(long, echo, recordingLog()))).to.match(
      /^cannot make the control socket .*control\.sock: /,
    )
  })
})

describe('control socket: long answers', () => {
  it('may be much longer than requests: a list of all accounts', async () => {
    await using folder = await tempFolder()
    const path = join(folder.path, 'control.sock')
    const lines = Array.from({ length: 100_000 }, (_, i) => `user${i}@example.org`)
    await using _ = await serveControl(path, async () => ({ lines }), recordingLog())
    expect(await askServer(path, { command: 'user.list', args: [] })).to.deep.equal({ lines })
  })
})

describe('control socket: servers that do not answer', () => {
  for (const [what, answer] of [
    ['close the connection', ''],
    ['say something that is no JSON', 'what?\n'],
    ['say something that is no answer', '{"hello":1}\n'],
    ['stop in the middle', '{"lines":["a'],
  ] as const)
    it(`that ${what}: a sentence`, async () => {
      await using folder = await tempFolder()
      const path = join(folder.path, 'control.sock')
      const server = createServer((socket) => {
        socket.on('error', () => undefined)
        socket.resume().end(answer)
      })
      await new Promise<void>((resolve) => server.listen(path, resolve))
      expect(await failureOf(askServer(path, { command: 'x', args: [] }))).to.equal(
        'the running server gave no answer',
      )
      await new Promise((resolve) => server.close(resolve))
    })
})

describe('control socket: requests that are none', () => {
  const cases: readonly (readonly [what: string, text: string])[] = [
    ['no JSON', 'GET / HTTP/1.1\n'],
    ['no object', '"user.list"\n'],
    ['null', 'null\n'],
    ['no command', '{"args":[]}\n'],
    ['no arguments', '{"command":"x"}\n'],
    ['arguments that are no texts', '{"command":"x","args":[1]}\n'],
  ]
  for (const [what, text] of cases)
    it(`${what}: an error that tells nothing, a line in the log, and the server goes on`, async () => {
      await using folder = await tempFolder()
      const path = join(folder.path, 'control.sock')
      const log = recordingLog()
      await using _ = await serveControl(path, echo, log)
      expect(JSON.parse(await raw(path, text))).to.deep.equal({
        error: 'the server could not do this; see its log',
      })
      expect(log.lines.join('\n')).to.match(/^warn control request failed/)
      expect(await askServer(path, { command: 'x', args: [] })).to.deep.equal({ lines: ['x'] })
    })

  it('one without end is cut off', async () => {
    await using folder = await tempFolder()
    const path = join(folder.path, 'control.sock')
    await using _ = await serveControl(path, echo, recordingLog())
    expect(await raw(path, 'x'.repeat(200_000))).to.equal('')
    expect(await askServer(path, { command: 'x', args: [] })).to.deep.equal({ lines: ['x'] })
  })

  it('a crash of the command is told as such, with its stack in the log only', async () => {
    await using folder = await tempFolder()
    const path = join(folder.path, 'control.sock')
    const log = recordingLog()
    await using _ = await serveControl(
      path,
      async () => {
        throw new TypeError('secret detail')
      },
      log,
    )
    expect(await askServer(path, { command: 'x', args: [] })).to.deep.equal({
      error: 'the server could not do this; see its log',
    })
    expect(log.lines).to.have.length(1)
  })

  it('a password in a request does not get into the log', async () => {
    await using folder = await tempFolder()
    const path = join(folder.path, 'control.sock')
    const logged: string[] = []
    const warn = (message: string, fields?: object): void =>
      void logged.push(message, inspect(fields, { depth: 10, showHidden: true }))
    await using _ = await serveControl(path, echo, { ...recordingLog(), warn })
    await raw(path, '{"command":"user.add","args":["a@b","hunter2"]\n')
    await raw(path, '{"command":"user.add","args":["a@b","hunter2",1]}\n')
    expect(logged.filter((line) => line === 'control request failed')).to.have.length(2)
    expect(logged.join('\n')).not.to.contain('hunter2')
  })

  it('a file in its place that is no socket is replaced', async () => {
    await using folder = await tempFolder()
    const path = join(folder.path, 'control.sock')
    await mkdir(folder.path, { recursive: true })
    await writeFile(path, 'x')
    await chmod(path, 0o600)
    await using _ = await serveControl(path, echo, recordingLog())
    expect(await askServer(path, { command: 'x', args: [] })).to.deep.equal({ lines: ['x'] })
  })
})
