/**
 * Loads modules: order by requires and optional, configuration, contexts, and the undoing of everything a module
 * registered. One loader serves one scope: a virtual host, or the server itself.
 */
import { makeContext, type ContextEnv } from './context.ts'
import type { Lifecycle, ModuleDef, Schema } from './module.ts'
import { OperatorError } from './operator-error.ts'

/** A module whose configuration type does not matter here: any ModuleDef is one. */
export interface AnyModule extends Omit<ModuleDef<never>, 'config'> {
  readonly config?: Schema<unknown>
}

/** A module that is set up. */
interface Loaded {
  readonly def: AnyModule
  readonly config: unknown
  readonly lifecycle: Lifecycle<never> | undefined
  readonly undo: AsyncDisposableStack
}

/** A mistake in the set of modules or their options, for the operator. */
export class ConfigError extends OperatorError {
  override readonly name = 'ConfigError'
}

/** Providers before users; throws ConfigError on a missing or circular requirement. The order given decides ties. */
export function orderModules(defs: readonly AnyModule[]): AnyModule[] {
  const byName = new Map(defs.map((def) => [def.name, def]))
  const ordered: AnyModule[] = []
  const state = new Map<string, 'open' | 'done'>()
  const visit = (def: AnyModule, path: readonly string[]): void => {
    if (state.get(def.name) === 'done') return
    if (state.get(def.name) === 'open')
      throw new ConfigError(`modules require each other: ${[...path, def.name].join(' -> ')}`)
    state.set(def.name, 'open')
    for (const name of [...(def.requires ?? []), ...(def.optional ?? [])]) {
      const needed = byName.get(name)
      if (needed !== undefined) visit(needed, [...path, def.name])
      else if (def.requires?.includes(name))
        throw new ConfigError(`module ${def.name} requires module ${name}, which is not enabled`)
    }
    state.set(def.name, 'done')
    ordered.push(def)
  }
  for (const def of defs) visit(def, [])
  return ordered
}

/** A module that nobody has `wanted` by name goes with one that it requires; `enabled`: names to options, changed in place. */
export function withoutOrphans(
  enabled: Map<string, unknown>,
  wanted: ReadonlySet<string>,
  modules: ReadonlyMap<string, AnyModule>,
): void {
  for (let before = -1; before !== enabled.size; ) {
    before = enabled.size
    for (const name of enabled.keys())
      if (!wanted.has(name) && modules.get(name)?.requires?.some((other) => !enabled.has(other)) === true)
        enabled.delete(name)
  }
}

/** Applies defaults and checks; throws ConfigError that names module and option. */
export function parseConfig(def: AnyModule, raw: unknown): unknown {
  if (def.config === undefined) {
    if (raw !== undefined && Object.keys(raw as object).length > 0)
      throw new ConfigError(`module ${def.name} has no options`)
    return undefined
  }
  const result = def.config.safeParse(raw ?? {})
  if (result.success) return Object.freeze(result.data)
  const issue = result.error.issues[0]
  throw new ConfigError(
    `module ${def.name}: ${[...(issue?.path ?? [])].join('.') || 'options'}: ${issue?.message ?? 'wrong'}`,
  )
}

/** The modules of one scope. */
export class Loader {
  readonly #env: ContextEnv
  #loaded: Loaded[] = []

  constructor(env: ContextEnv) {
    this.#env = env
  }

  get names(): readonly string[] {
    return this.#loaded.map((m) => m.def.name)
  }

  /** Sets up all modules, then tells each that all are ready. On failure what was set up is undone. */
  async loadAll(defs: readonly AnyModule[], options: ReadonlyMap<string, unknown>): Promise<void> {
    const configs = orderModules(defs).map((def) => ({
      def,
      config: parseConfig(def, options.get(def.name)),
    }))
    try {
      for (const { def, config } of configs) this.#loaded.push(await this.#setUp(def, config))
      for (const { lifecycle } of this.#loaded) await lifecycle?.ready?.()
    } catch (error) {
      await this.unloadAll()
      throw error
    }
  }

  /** Adds one module to a running host. */
  async load(def: AnyModule, options?: unknown): Promise<void> {
    const missing = def.requires?.find((name) => !this.names.includes(name))
    if (missing !== undefined)
      throw new ConfigError(`module ${def.name} requires module ${missing}, which is not enabled`)
    const loaded = await this.#setUp(def, parseConfig(def, options))
    this.#loaded.push(loaded)
    await loaded.lifecycle?.ready?.()
  }

  async #setUp(def: AnyModule, config: unknown): Promise<Loaded> {
    const undo = new AsyncDisposableStack()
    const abort = new AbortController()
    undo.defer(() => abort.abort())
    try {
      const ctx = makeContext(this.#env, def, undo, abort.signal)
      const lifecycle = (await def.setup(ctx, config as never)) ?? undefined
      return { def, config, lifecycle, undo }
    } catch (error) {
      await undo.disposeAsync()
      throw error
    }
  }

  /** Removes a module and those that require it, last loaded first. */
  async unload(name: string): Promise<readonly string[]> {
    const gone = new Set([name])
    for (const { def } of this.#loaded) if (def.requires?.some((r) => gone.has(r))) gone.add(def.name)
    for (const loaded of this.#loaded.toReversed())
      if (gone.has(loaded.def.name)) await this.#tearDown(loaded)
    this.#loaded = this.#loaded.filter((m) => !gone.has(m.def.name))
    return [...gone]
  }

  async unloadAll(): Promise<void> {
    for (const loaded of this.#loaded.toReversed()) await this.#tearDown(loaded)
    this.#loaded = []
  }

  async #tearDown(loaded: Loaded): Promise<void> {
    try {
      await loaded.lifecycle?.stop?.()
    } catch (error) {
      this.#env.log.error(`module ${loaded.def.name} failed to stop`, { err: error })
    }
    await loaded.undo.disposeAsync()
  }

  /**
   * Brings the modules to a new configuration: those that changed are reconfigured or loaded anew, with what requires
   * them. All options are checked before anything is touched.
   */
  async reload(defs: readonly AnyModule[], options: ReadonlyMap<string, unknown>): Promise<void> {
    const wanted = orderModules(defs).map((def) => ({ def, config: parseConfig(def, options.get(def.name)) }))
    for (const name of this.names) if (!wanted.some((w) => w.def.name === name)) await this.unload(name)
    for (const { def, config } of wanted) {
      const at = this.#loaded.findIndex((m) => m.def.name === def.name)
      const current = this.#loaded[at]
      if (current === undefined || JSON.stringify(current.config) === JSON.stringify(config)) continue
      if (current.lifecycle?.reconfigure === undefined) await this.unload(def.name)
      else {
        await current.lifecycle.reconfigure(config as never)
        this.#loaded[at] = { ...current, config }
      }
    }
    for (const { def, config } of wanted) {
      if (this.names.includes(def.name)) continue
      const loaded = await this.#setUp(def, config)
      this.#loaded.push(loaded)
      await loaded.lifecycle?.ready?.()
    }
  }
}
