/** An XML stream over a pipe, with an owner that writes down what it is told. */
import type { Log } from '../../server/module.ts'
import { type HeaderAttrs, type StreamOwner, XmlStream } from '../../server/stream.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { VirtualClock } from './clock.ts'
import { PipeTransport } from './host.ts'

/** A transport whose connection stays open after `end` until the peer closes it. */
export class Lingering extends PipeTransport {
  /** Writes that came before `end`. */
  endedAt: number | undefined = undefined
  destroyed = false
  override end(): void {
    this.endedAt = this.written.length
  }
  override destroy(): void {
    this.destroyed = true
    super.destroy()
  }
}

/** Writes down what the stream tells: 'header', 'element message', 'closed lost'. */
export class Owner implements StreamOwner {
  stream: XmlStream | undefined
  readonly told: string[] = []
  onElement: (element: Element) => void = () => undefined

  /** Elements told of so far. */
  get elements(): number {
    return this.told.filter((t) => t.startsWith('element')).length
  }
  header(): void {
    this.told.push('header')
    this.stream?.sendHeader({ from: 'example.org', id: 'i1' })
  }
  element(element: Element): void {
    this.told.push(`element ${element.name}`)
    this.onElement(element)
  }
  secured(): void {
    this.told.push('secured')
  }
  drained(): void {
    this.told.push('drained')
  }
  inputEnded(done: () => void): void {
    this.told.push('input ended')
    done()
  }
  errorHeader(): HeaderAttrs {
    return { from: 'example.org', id: 'e1', version: '1.0' }
  }
  closed(reason: string): void {
    this.told.push(`closed ${reason}`)
  }
}

/** Limits of the rig's streams. */
export const rigLimits = { maxBytes: 100_000, maxDepth: 20, maxAttrs: 20, maxName: 100 }

/** A stream on a transport. `out`: what was written since the last call; `logged`: lines of level info and above. */
export function streamRig<T extends PipeTransport>(transport: T) {
  const clock = new VirtualClock()
  const owner = new Owner()
  const logged: string[] = []
  const line = (message: string): void => void logged.push(message)
  const log: Log = { debug: () => undefined, info: line, warn: line, error: line }
  const env = { clock, log, closeTimeoutMs: 5000 }
  const stream = new XmlStream(transport, 'jabber:client', owner, rigLimits, env)
  owner.stream = stream
  const out = (): string => transport.written.splice(0).join('')
  return { clock, owner, stream, transport, logged, out }
}

/** A message with that body. */
export const messageOf = (body: string): Element =>
  el('message', 'jabber:client', {}, el('body', 'jabber:client', {}, body))
