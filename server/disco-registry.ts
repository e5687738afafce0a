/** What a host says of itself (XEP-0030): the registry behind `ctx.disco`, filled by modules, read by the disco module. */
import type { Disco, DiscoInfo, DiscoItem, Target } from './module.ts'
import type { Element } from './xmpp/element.ts'
import type { JID } from './xmpp/jid.ts'

type ItemList = (asker: JID, to: JID) => AsyncIterable<DiscoItem> | Iterable<DiscoItem>
type NodeInfo = (node: string, asker: JID, to: JID) => DiscoInfo | undefined | Promise<DiscoInfo | undefined>
type Identity = DiscoInfo['identities'][number]

/** Registrations of all modules of one host. */
export class DiscoRegistry {
  readonly #features: { readonly on: Target; readonly ns: string }[] = []
  readonly #identities: { readonly on: Target; readonly identity: Identity }[] = []
  readonly #forms: { readonly on: Target; readonly build: () => Element | undefined }[] = []
  readonly #items: { readonly on: Target; readonly node: string; readonly list: ItemList }[] = []
  readonly #nodes: {
    readonly on: Target
    readonly match: (node: string) => boolean
    readonly info: NodeInfo
  }[] = []
  readonly #watchers: (() => void)[] = []

  /** The view of one module; what it registers is handed to `own` for undoing. */
  view(own: (undo: Disposable) => void): Disco {
    const register = <T>(list: T[], entry: T, announce: boolean): void => {
      list.push(entry)
      if (announce) this.#changed()
      own({
        [Symbol.dispose]: () => {
          const at = list.indexOf(entry)
          if (at >= 0) list.splice(at, 1)
          if (announce) this.#changed()
        },
      })
    }
    return {
      feature: (on, ns) => register(this.#features, { on, ns }, true),
      identity: (on, category, type, name) =>
        register(
          this.#identities,
          { on, identity: { category, type, ...(name === undefined ? {} : { name }) } },
          true,
        ),
      form: (on, build) => register(this.#forms, { on, build }, true),
      items: (on, node, list) => register(this.#items, { on, node, list }, false),
      node: (on, match, info) => register(this.#nodes, { on, match, info }, false),
      onChange: (fn) => register(this.#watchers, fn, false),
      info: (on) => this.#info(on),
      nodeInfo: async (on, node, asker, to) => {
        for (const entry of this.#nodes) {
          if (entry.on !== on || !entry.match(node)) continue
          const info = await entry.info(node, asker, to)
          if (info !== undefined) return info
        }
        return undefined
      },
      itemLists: (on, node) => {
        const lists = this.#items.filter((e) => e.on === on && e.node === node).map((e) => e.list)
        return lists.length > 0 || node === '' ? lists : undefined
      },
    }
  }

  #info(on: Target): DiscoInfo {
    const features = new Set(this.#features.filter((f) => f.on === on).map((f) => f.ns))
    const identities = this.#identities.filter((i) => i.on === on).map((i) => i.identity)
    const forms = this.#forms.filter((f) => f.on === on).map((f) => f.build())
    return { identities, features: [...features].toSorted(), forms: forms.filter((f) => f !== undefined) }
  }

  #changed(): void {
    for (const watcher of this.#watchers.slice()) watcher()
  }
}
