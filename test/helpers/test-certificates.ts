/** Certificates in tests: a folder for them, their making, and connections that use them. */
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as tlsConnect, type ConnectionOptions, type TLSSocket } from 'node:tls'
import { type CertificatePair, createCertificate } from '../../certs/make-dev.ts'
import type { TlsInfo } from '../../server/module.ts'
import { type Listener, listenTcp } from '../../server/net.ts'
import { Tls, type TlsSettings } from '../../server/tls.ts'
import { Accepted, recordingLog, type Sink } from './sink.ts'

const DAY_MS = 86_400_000
/** A day as many days from now. */
export const soon = (days: number): Date => new Date(Date.now() + days * DAY_MS)

/** Gives each test of a group an empty folder, and closes after it what it opened. */
export function testCertificates() {
  let folder: string
  const log = recordingLog()
  const open: { destroy?(): void; close?(): Promise<void> }[] = []

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'hermod-tls-'))
    log.lines.length = 0
  })
  afterEach(async () => {
    for (const item of open.splice(0)) {
      item.destroy?.()
      await item.close?.()
    }
    await rm(folder, { recursive: true })
  })

  /** Loads certificates from the folder. */
  const load = (opts: Partial<TlsSettings> & { hosts: readonly string[] }) =>
    Tls.load({ folder, development: false, log, ...opts })

  /** A certificate for a name, valid for 90 days. */
  const make = (name: string, opts: Partial<Parameters<typeof createCertificate>[0]> = {}) =>
    createCertificate({ name, alsoNames: [name], notBefore: soon(-1), notAfter: soon(90), ...opts })

  /** Puts a certificate where that of a host is looked for. */
  async function put(host: string, pair: CertificatePair): Promise<void> {
    await writeFile(join(folder, `${host}.crt`), pair.cert)
    await writeFile(join(folder, `${host}.key`), pair.key)
  }

  /** Listens with direct TLS; the result connects. */
  async function listenWith(tls: Tls) {
    const accepted = new Accepted()
    const listener: Listener = await listenTcp(
      { address: '127.0.0.1', port: 0, tls: 'direct' },
      tls,
      accepted.accept,
      log,
    )
    open.push(listener)
    let count = 0
    return async (
      opts: ConnectionOptions = {},
    ): Promise<{ client: TLSSocket; sink: Sink; info: TlsInfo }> => {
      const client = tlsConnect({
        port: listener.port,
        host: '127.0.0.1',
        rejectUnauthorized: false,
        ...opts,
      })
      open.push(client)
      await once(client, 'secureConnect')
      const sink = await accepted.sink(count++)
      if (sink.transport.tls === undefined) throw new Error('no TLS')
      return { client, sink, info: sink.transport.tls }
    }
  }

  /** What a promise was rejected with. */
  const message = (promise: Promise<unknown>): Promise<string> =>
    promise.then(
      () => 'no error',
      (error: unknown) =>
        (error instanceof Error ? error.message : String(error)).replaceAll(folder, 'FOLDER'),
    )
  return { load, make, put, listenWith, message, log, open, folder: () => folder }
}
