/** Opening a database: options, schema version, and one clear sentence for the operator when it cannot be used. */
import { MongoClient, MongoParseError, ReadConcern } from 'mongodb'
import type { MongoClientOptions } from 'mongodb'
import { StoreUnavailable } from '../contract.ts'
import { Connection, defaultTimeoutMs, isDuplicate } from './connection.ts'
import type { MongoConfig, Row } from './connection.ts'

/** Version of what this driver writes; a database with a newer one is refused. */
export const schemaVersion = 1

/** Connects, checks the schema version, reads the clock. Throws {@link StoreUnavailable} with one sentence. */
export async function connect(config: MongoConfig): Promise<Connection> {
  const timeoutMs = config.timeoutMs ?? defaultTimeoutMs
  let client: MongoClient | undefined
  try {
    client = new MongoClient(config.url, clientOptions(config, timeoutMs))
    if (config.onCommand !== undefined) {
      const { onCommand } = config
      client.on('commandStarted', ({ commandName, command }) => onCommand(commandName, command))
    }
    const name = databaseName(config)
    let db = client.db(name, { readPreference: 'primary' })
    // The library knows better what is wrong, so it may speak first.
    const hello = await bounded(timeoutMs * 1.5, client, () => db.command({ hello: 1 }))
    const majority = (client.options.writeConcern?.w ?? 'majority') === 'majority'
    const clustered = typeof hello['setName'] === 'string' || hello['msg'] === 'isdbgrid'
    // What a reader has seen must not be rolled back by the next primary: a lower id could appear then.
    if (clustered && majority && client.options.readConcern === undefined) {
      db = client.db(name, { readPreference: 'primary', readConcern: new ReadConcern('majority') })
    }
    const connection = new Connection(client, db, config)
    await checkSchema(connection, name)
    if (config.now === undefined) await connection.readClock()
    return connection
  } catch (error) {
    await client?.close()
    const reason = (error instanceof Error ? error.message : 'unknown error')
      .replace(/\s+/g, ' ')
      .slice(0, 300)
    if (error instanceof StoreUnavailable) throw error
    const hosts = client?.options.hosts.join(', ') ?? ''
    const what =
      error instanceof MongoParseError || client === undefined
        ? 'the address of the mongodb store is wrong'
        : `cannot use the mongodb store${hosts === '' ? '' : ` at ${hosts}`}`
    // Not as `cause`: what the library says may quote the address, and causes end up in logs.
    throw new StoreUnavailable(`${what}: ${redact(reason, config.url)}`)
  }
}

function clientOptions(config: MongoConfig, timeoutMs: number): MongoClientOptions {
  const says = (option: string): boolean => new RegExp(`[?&]${option}=`, 'i').test(config.url)
  return {
    appName: 'hermod',
    ...(says('maxPoolSize') ? {} : { maxPoolSize: config.maxPoolSize ?? 20 }),
    ...(says('w') || says('journal') ? {} : { writeConcern: { w: 'majority', ...config.writeConcern } }),
    connectTimeoutMS: timeoutMs,
    serverSelectionTimeoutMS: timeoutMs,
    waitQueueTimeoutMS: timeoutMs,
    ignoreUndefined: true,
    monitorCommands: config.onCommand !== undefined,
  }
}

function databaseName(config: MongoConfig): string {
  if (config.database !== undefined) return config.database
  const path = /^mongodb(?:\+srv)?:\/\/[^/]+\/([^?]+)/.exec(config.url)?.[1]
  return path === undefined ? 'hermod' : decodeURIComponent(path)
}

// Authentication has no limit of its own in the library.
async function bounded<R>(timeoutMs: number, client: MongoClient, run: () => Promise<R>): Promise<R> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`no answer within ${timeoutMs} ms`))
      void client.close()
    }, timeoutMs)
  })
  try {
    return await Promise.race([run(), late])
  } finally {
    clearTimeout(timer)
  }
}

async function checkSchema(connection: Connection, database: string): Promise<void> {
  const rows = connection.rows('meta')
  let found: Row | null
  try {
    // A write also when there is nothing to write: a server that does not take any is found out now.
    found = await connection.run((opts) =>
      rows.findOneAndUpdate(
        { _id: 'schema' },
        { $setOnInsert: { version: schemaVersion } },
        { upsert: true, returnDocument: 'after', ...opts },
      ),
    )
  } catch (error) {
    if (!isDuplicate(error)) throw error
    // Another process made it at the same time.
    found = await connection.run((opts) => rows.findOne({ _id: 'schema' }, opts))
  }
  const version: unknown = found?.['version']
  if (typeof version !== 'number')
    throw new StoreUnavailable(`database ${database} is not one of this server`)
  if (version > schemaVersion) {
    throw new StoreUnavailable(
      `database ${database} was written by a newer version of this server (schema ${version}, this one knows ${schemaVersion})`,
    )
  }
}

/** The text without the credentials of the address. */
export function redact(text: string, url: string): string {
  const secrets: string[] = []
  const user = /^[a-z+]+:\/\/([^/?#]*)@/i.exec(url)?.[1]
  if (user !== undefined) secrets.push(user, ...user.split(':'))
  for (const [, value] of url.matchAll(/[?&][^=&]*(?:password|token|credential)[^=&]*=([^&]*)/gi)) {
    if (value !== undefined) secrets.push(value)
  }
  let safe = url === '' ? text : text.replaceAll(url, '***')
  for (const secret of secrets.flatMap((one) => [one, decoded(one)]).sort((a, b) => b.length - a.length)) {
    if (secret === '') continue
    // Very short ones are part of every other word; there they give nothing away.
    if (secret.length > 3) safe = safe.replaceAll(secret, '***')
    else safe = safe.replace(/[\p{L}\p{N}%]+/gu, (word) => (word === secret ? '***' : word))
  }
  return safe
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    // Not percent-encoded: there is no other spelling to hide.
    return text
  }
}
