/**
 * What a client has sent and is not worked on yet: one element at a time, in order, within the time of a turn (turns.ts), and not while the
 * client does not read what it is sent. When more than a few elements wait, the socket is not read.
 */
import type { XmlStream } from './stream.ts'
import { currentTurn, free, later } from './turns.ts'
import type { Element } from './xmpp/element.ts'

/** What a session may do in each turn however much others do: so many messages, or an eighth of it in requests. */
const OWN_SHARE = 64
/** Elements that wait before the socket is not read any more. */
const PAUSE_AT = 16

/** The session whose input it is. */
export interface InboxOwner {
  readonly stream: XmlStream
  /** Before binding nothing is put off: what follows in the same chunk may belong to another stream (RFC 6120 §4.3.3). */
  readonly bound: boolean
  /** Much of what the client was sent waits to be read; `Inbox.next` is called when that is over. */
  readonly congested: boolean
  /** Works on one element; a promise holds the others. Throws StreamError. */
  take(element: Element): void | Promise<void>
}

/** The input of one session. */
export class Inbox {
  readonly #owner: InboxOwner
  #queue: Element[] | undefined
  #head = 0
  #busy = false
  #working: Promise<void> | undefined
  #planned = false
  #paused = false
  #atEnd: (() => void) | undefined
  /** The turn that work was last done in, and the weight of that work. */
  #turn = 0
  #used = 0

  constructor(owner: InboxOwner) {
    this.#owner = owner
  }

  /** Whether something is being worked on, or waits. */
  get empty(): boolean {
    return !this.#busy && this.#queue === undefined
  }

  add(element: Element): void {
    if (this.empty && this.#mayWork(element)) {
      this.#take(element)
      return
    }
    const queue = (this.#queue ??= [])
    queue.push(element)
    if (queue.length - this.#head >= PAUSE_AT) this.#pause()
    if (!this.#busy) this.#plan()
  }

  /** Calls `done` when everything is worked on: the client sends no more. */
  ended(done: () => void): void {
    if (this.empty) done()
    else this.#atEnd = done
  }

  /** Forgets what was received and not yet looked at (STARTTLS, the end of the stream). */
  clear(): void {
    this.#queue = undefined
    this.#head = 0
  }

  /** Resolves when what is being worked on is done; undefined: nothing is. */
  get working(): Promise<void> | undefined {
    return this.#working
  }

  /** The stream is given up: what it has sent and nobody has looked at is forgotten, its end too. */
  leave(): void {
    this.clear()
    this.#atEnd = undefined
    this.#paused = false
  }

  /** Goes on with what another session has not worked on, from the next call of `next` on. */
  takeFrom(other: Inbox): void {
    this.clear()
    this.#busy = true
    this.#queue = other.#queue?.slice(other.#head)
    this.#atEnd = other.#atEnd
    this.#paused = other.#paused
    other.clear()
    other.#atEnd = undefined
    other.#paused = false
  }

  /** Works on what has waited, after what held it is over. */
  next(): void {
    this.#busy = false
    this.#work()
  }

  /** The client reads again: works on what has waited, unless something else holds it. */
  wake(): void {
    if (!this.#busy) this.#work()
  }

  #pause(): void {
    if (this.#paused) return
    this.#paused = true
    this.#owner.stream.pause()
  }

  #mayWork(element: Element): boolean {
    if (!this.#owner.bound) return true
    if (this.#owner.congested) return false
    const weight = element.name === 'iq' ? 8 : 1 // its answer may be long
    const turn = currentTurn()
    if (turn !== this.#turn) {
      this.#turn = turn
      this.#used = 0
    }
    this.#used += weight
    return this.#used <= OWN_SHARE || free(weight)
  }

  #take(element: Element): void {
    const done = this.#owner.take(element)
    if (done !== undefined) this.hold(done)
  }

  /** Looks at nothing more until this is done; its failure ends the stream. */
  hold(done: Promise<void>): void {
    this.#busy = true
    if (!this.#owner.bound) this.#pause()
    const working: Promise<void> = done.then(
      () => this.#done(working),
      (error: unknown) => {
        this.#done(working, false)
        this.#owner.stream.fail(error)
      },
    )
    this.#working = working
  }

  #done(working: Promise<void>, goOn = true): void {
    if (this.#working !== working) return // something newer holds
    this.#working = undefined
    if (goOn) this.next()
  }

  #work(): void {
    while (!this.#busy) {
      const element = this.#queue?.[this.#head]
      if (this.#queue === undefined || element === undefined) return this.#idle()
      if (!this.#mayWork(element)) return this.#plan()
      this.#head++
      if (this.#head === this.#queue.length) this.clear()
      try {
        this.#take(element)
      } catch (error) {
        this.#owner.stream.fail(error)
        return
      }
    }
  }

  #idle(): void {
    this.clear()
    const done = this.#atEnd
    this.#atEnd = undefined
    if (done !== undefined) done()
    else if (this.#paused) {
      this.#paused = false
      this.#owner.stream.resume()
    }
  }

  #plan(): void {
    if (this.#planned || this.#owner.congested) return
    this.#planned = true
    later(() => {
      this.#planned = false
      if (!this.#busy) this.#work()
    })
  }
}
