/**
 * Records what a mongodb store sends and checks it: each filter and sort against the indexes that were made, each command
 * against the part of the protocol that all compatible servers have. Knows single-field bounds of B-tree indexes, as far as
 * the driver relies on them; not a query planner.
 */
import type { Document } from 'mongodb'

/** One filter with its sort, as sent. */
export interface Query {
  readonly command: string
  readonly collection: string
  readonly filter: Document
  readonly sort?: Document
}

/** What was sent. */
export class Recorder {
  /** One of each shape: same command, kind of collection, conditions and sort. */
  readonly shapes = new Map<string, Query>()
  /** Indexes made, by collection; `_id` is everywhere. */
  readonly indexes = new Map<string, Document[]>()
  /** Commands that not every server has, with what is wrong. */
  readonly foreign = new Set<string>()
  /** How often each command was sent. */
  readonly counts = new Map<string, number>()

  /** Takes a command; for `onCommand` of the driver. */
  readonly record = (name: string, command: Document): void => {
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1)
    this.#checkPortable(name, command)
    const collection = String(command[name])
    if (name === 'createIndexes') {
      const made = this.indexes.get(collection) ?? []
      for (const { key } of command['indexes'] as Document[]) made.push(plain(key))
      this.indexes.set(collection, made)
    }
    for (const one of queriesOf(name, command)) {
      const query = { command: name, collection, ...one }
      const kind = collection.split('.')[0]
      const id = JSON.stringify([name, kind, shape(one.filter), one.sort])
      if (!this.shapes.has(id)) this.shapes.set(id, query)
    }
  }

  #checkPortable(name: string, command: Document): void {
    if (!portable.has(name)) this.foreign.add(`command ${name}`)
    for (const field of ['startTransaction', 'autocommit', 'collation', 'let', 'arrayFilters', 'hint']) {
      if (field in command) this.foreign.add(`${name} with ${field}`)
    }
    for (const update of (command['updates'] as Document[] | undefined) ?? []) {
      if (Array.isArray(update['u'])) this.foreign.add('update with a pipeline')
      for (const field of ['collation', 'arrayFilters'])
        if (field in update) this.foreign.add(`update with ${field}`)
    }
    if (Array.isArray(command['update'])) this.foreign.add('findAndModify with a pipeline')
    for (const stage of (command['pipeline'] as Document[] | undefined) ?? []) {
      for (const one of Object.keys(stage)) {
        if (!['$match', '$group', '$skip', '$limit'].includes(one)) this.foreign.add(`aggregate with ${one}`)
      }
    }
    for (const index of (command['indexes'] as Document[] | undefined) ?? []) {
      for (const field of Object.keys(index)) {
        if (!['key', 'name', 'unique'].includes(field)) this.foreign.add(`index with ${field}`)
      }
      for (const way of Object.values(plain(index['key'])))
        if (way !== 1) this.foreign.add(`index ${String(way)}`)
    }
  }
}

const portable = new Set([
  'hello',
  'ping',
  'find',
  'insert',
  'update',
  'delete',
  'findAndModify',
  'aggregate',
  'createIndexes',
  'listCollections',
  'endSessions',
])

function queriesOf(name: string, command: Document): readonly Omit<Query, 'command' | 'collection'>[] {
  switch (name) {
    case 'find': {
      const sort = plain(command['sort'])
      return [{ filter: command['filter'] as Document, ...(Object.keys(sort).length === 0 ? {} : { sort }) }]
    }
    case 'findAndModify':
      return [{ filter: command['query'] as Document }]
    case 'aggregate':
      return [{ filter: (command['pipeline'] as Document[])[0]?.['$match'] as Document }]
    case 'update':
      return (command['updates'] as Document[]).map(({ q }) => ({ filter: q as Document }))
    case 'delete':
      return (command['deletes'] as Document[]).map(({ q }) => ({ filter: q as Document }))
    default:
      return []
  }
}

/** Specifications come as objects or as maps. */
function plain(spec: unknown): Document {
  return spec instanceof Map ? Object.fromEntries(spec) : ((spec ?? {}) as Document)
}

type Condition = 'equal' | 'in' | 'all' | 'range' | 'exists' | 'other'

function conditionOf(field: string, value: unknown): Condition {
  if (field.startsWith('$')) return 'other'
  const plainObject =
    typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype
  const operators = plainObject ? Object.keys(value).filter((one) => one.startsWith('$')) : []
  if (operators.length === 0) return 'equal'
  if (operators.includes('$in')) return 'in'
  if (operators.includes('$all')) return 'all'
  if (operators.includes('$exists')) return 'exists'
  return operators.every((one) => ['$gt', '$gte', '$lt', '$lte'].includes(one)) ? 'range' : 'other'
}

function shape(filter: Document): readonly string[] {
  return Object.entries(filter).map(([field, value]) => `${field} ${conditionOf(field, value)}`)
}

/**
 * What else may be asked of the rows that an index gives, by kind of collection: these are of one owner already, or a
 * single row.
 */
const residual: Readonly<Record<string, readonly string[]>> = {
  archive: ['g', 'o', 't', 'c', 'k', 'w'],
  docs: ['v'],
  lease: ['t', 'e', '$or'],
  counter: [],
  meta: [],
}

/** Why no index serves this query; undefined when one does. */
export function uncovered(query: Query, indexes: readonly Document[]): string | undefined {
  const conditions = new Map(
    Object.entries(query.filter).map(([field, value]) => [field, conditionOf(field, value)]),
  )
  const sort = Object.entries(query.sort ?? {})
  const kind = query.collection.split('.')[0] ?? ''
  const reasons: string[] = []
  for (const index of [{ _id: 1 }, ...indexes]) {
    const fields = Object.keys(index)
    let used = 0
    for (let field = fields[used]; field !== undefined; field = fields[used]) {
      const condition = conditions.get(field)
      // One of several values still has to be looked for once each; sorted by this field, they come in order.
      if (condition === 'equal' || condition === 'all' || (condition === 'in' && used + 1 === fields.length))
        used += 1
      else break
    }
    const last = fields[used]
    const bounded = last !== undefined && conditions.get(last) === 'range' ? 1 : 0
    const from = conditions.get(fields[used - 1] ?? '') === 'in' ? used - 1 : used
    const inOrder = sort.every(([field], i) => fields[from + i] === field || fields[i] === field)
    const oneWay = new Set(sort.map(([, way]) => way)).size < 2
    const served = fields.slice(0, used + bounded)
    const rest = [...conditions.keys()].filter((field) => !served.includes(field))
    const strange = rest.filter((field) => !(residual[kind] ?? []).includes(field))
    if (served.length > 0 && inOrder && oneWay && strange.length === 0) return undefined
    reasons.push(`${fields.join()}: serves ${served.join() || 'nothing'}, leaves ${rest.join() || 'nothing'}`)
  }
  return `${query.command} ${query.collection} ${shape(query.filter).join(', ')} sort ${JSON.stringify(query.sort)}: ${reasons.join('; ')}`
}
