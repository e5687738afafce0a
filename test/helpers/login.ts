/** A client that is not logged in yet, over a pipe: headers, features, SASL by hand. Reads with sax and ltx, not with the server's parser. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Element } from 'ltx'
import type { TlsInfo } from '../../server/module.ts'
import { fakeTls, type StreamOptions, type TestHost, type TestStream } from './host.ts'
import { Scram, type ScramOverrides } from './scram.ts'
import { NS_CLIENT, NS_SASL, NS_STREAM, StreamReader } from './xml.ts'

/** TLS with channel bindings, and a client certificate (DER) when given. */
export function bindingTls(more: Partial<TlsInfo> & { readonly certificate?: Uint8Array } = {}): TlsInfo {
  const { certificate, ...rest } = more
  return {
    ...fakeTls,
    channelBinding: (type) => bindingData(type),
    clientCertificate: () => certificate,
    ...rest,
  }
}
/** What `bindingTls` binds to. */
export const bindingData = (type: string): Buffer<ArrayBuffer> => Buffer.from(`data of ${type}`)

const b64 = (text: string): string => Buffer.from(text).toString('base64')
const unb64 = (text: string): string => Buffer.from(text, 'base64').toString()

/** One client stream. */
export class LoginStream {
  readonly stream: TestStream
  readonly #domain: string
  #reader: StreamReader | undefined
  readonly #received: Element[] = []
  /** The newest <stream:features/>. */
  features: Element | undefined

  constructor(host: TestHost, opts: StreamOptions = {}) {
    this.stream = host.stream(opts)
    this.#domain = host.host.name
  }

  /** Opens a stream and reads its features. */
  static async open(
    host: TestHost,
    opts: StreamOptions & { readonly from?: string } = {},
  ): Promise<LoginStream> {
    const login = new LoginStream(host, opts)
    await login.header(opts.from)
    return login
  }

  /** Sends a header (also after TLS and SASL) and takes the features. */
  async header(from?: string): Promise<Element> {
    this.#reader = undefined
    const sender = from === undefined ? '' : ` from='${from}'`
    const [features] = await this.send(
      `<?xml version='1.0'?><stream:stream to='${this.#domain}'${sender} version='1.0' xmlns='${NS_CLIENT}' xmlns:stream='${NS_STREAM}'>`,
    )
    if (features === undefined) throw new Error('no features')
    return features
  }

  /** Sends and waits until something comes back or the stream is closed. */
  async send(text: string): Promise<Element[]> {
    this.#read(await this.stream.send(text))
    while (this.#received.length === 0 && !this.stream.closed) {
      await nextTurn()
      this.#read(await this.stream.send(''))
    }
    return this.take()
  }

  /** What was received and not taken. */
  take(): Element[] {
    return this.#received.splice(0)
  }

  /** Sends and expects one element back. */
  async ask(text: string): Promise<Element> {
    const [answer, ...more] = await this.send(text)
    if (answer === undefined || more.length > 0)
      throw new Error(`${more.length + 1} answers: ${String(answer)} ${more.join('')}`)
    return answer
  }

  /** Names of what the features offer, e.g. 'mechanisms', 'bind'. */
  get offers(): string[] {
    return this.features?.getChildElements().map((child) => child.getName()) ?? []
  }

  /** Mechanisms of RFC 6120, or of XEP-0388 with 'authentication'. */
  mechanisms(feature = 'mechanisms'): string[] {
    const offer = this.features?.getChildElements().find((child) => child.getName() === feature)
    return offer?.getChildren('mechanism').map((mechanism) => mechanism.getText()) ?? []
  }

  /** <auth/> with this initial response, not yet base64; the answer as `name` or `failure:condition`, with its text decoded. */
  async auth(mechanism: string, initial?: string): Promise<string> {
    return outcome(await this.send(authElement(mechanism, initial === undefined ? undefined : b64(initial))))
  }
  async respond(data: string): Promise<string> {
    return outcome(await this.send(`<response xmlns='${NS_SASL}'>${b64(data)}</response>`))
  }

  /** A whole SCRAM exchange; the last outcome. `tamper`: changes made after the challenge is known. */
  async scram(
    mechanism: string,
    user: string,
    password: string,
    opts: ScramOverrides & {
      readonly binding?: Buffer<ArrayBuffer>
      readonly tamper?: (serverFirst: string) => ScramOverrides
    } = {},
  ): Promise<string> {
    const { binding, tamper, ...overrides } = opts
    const scram = new Scram(mechanism, user, password, overrides, binding)
    const challenge = await this.auth(mechanism, scram.first())
    if (!challenge.startsWith('challenge ')) return challenge
    const serverFirst = challenge.slice('challenge '.length)
    if (tamper !== undefined) scram.override(tamper(serverFirst))
    const end = await this.respond(scram.final(serverFirst))
    if (!end.startsWith('success')) return end
    return scram.verify(end.slice('success '.length)) ? 'success' : 'success without proof'
  }

  #read(text: string): void {
    for (const part of text.split(/(?=<\?xml )/)) {
      if (part === '') continue
      if (this.#reader === undefined || part.startsWith('<?xml ')) this.#reader = this.#newReader()
      this.#reader.write(part)
    }
  }

  #newReader(): StreamReader {
    return new StreamReader({
      open: () => undefined,
      element: (element) => {
        if (element.getName() === 'features') this.features = element
        this.#received.push(element)
      },
      close: () => undefined,
    })
  }
}

/** <auth/> with the text as given. */
export function authElement(mechanism: string, text?: string): string {
  return `<auth xmlns='${NS_SASL}' mechanism='${mechanism}'>${text ?? ''}</auth>`
}

/** Elements in a short form: `challenge r=…`, `failure:not-authorized`, `error:policy-violation`, joined by spaces when several. */
export function outcome(elements: readonly Element[]): string {
  return elements.map(one).join(' ').trim()
}

function one(element: Element): string {
  const name = element.getName()
  if (name === 'failure' || name === 'error')
    return `${name}:${element.getChildElements()[0]?.getName() ?? 'nothing'}`
  const text = element.getText()
  return text === '' ? name : `${name} ${text === '=' ? '=' : unb64(text)}`
}
