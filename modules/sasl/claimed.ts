/**
 * What the account has keys for that a client says it is, in the header of its stream (XEP-0388): asked for before the features are
 * sent, so that no mechanism is offered that cannot succeed. The claim is not believed, and names without account get an answer too.
 */
import type { Ctx, ScramHash, Session } from '../../server/module.ts'
import type { MechanismEnv } from './mechanism.ts'

/** Hashes by stream. */
export class ClaimedHashes {
  readonly #env: MechanismEnv
  readonly #hashes: {
    get(s: Session): readonly ScramHash[] | undefined
    set(s: Session, v: readonly ScramHash[] | undefined): void
  }

  constructor(ctx: Ctx, env: MechanismEnv) {
    this.#env = env
    this.#hashes = ctx.perSession<readonly ScramHash[] | undefined>(() => undefined)
    ctx.hook('stream:opened', { phase: 'observe' }, ({ session }) => this.#look(session))
  }

  /** XEP-0388: those of the claimed account, else those that all accounts have; what the stream was offered stays. */
  of(s: Session): readonly ScramHash[] {
    return this.#hashes.get(s) ?? this.#env.auth().scramHashes
  }

  #look(s: Session): void | Promise<void> {
    if (s.is('authenticated')) return this.#hashes.set(s, undefined) // an idle session keeps nothing of this
    const { scramHashes, scramStore } = this.#env.auth()
    if (scramStore === undefined) return undefined
    const local = s.claimed?.local ?? ''
    const found = local === '' ? scramHashes : scramStore.hashesOf(local)
    if (!(found instanceof Promise)) return this.#hashes.set(s, found)
    return found.then((hashes) => this.#hashes.set(s, hashes))
  }
}
