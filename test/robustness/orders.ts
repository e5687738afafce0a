/** What stage.ts may ask of server-child.ts, and the messages between them. */

/** How the server is started. */
export interface StageOptions {
  readonly modules?: Readonly<Record<string, boolean | object>>
  readonly limits?: Readonly<Record<string, string | number>>
  /** Other parts of the configuration file. */
  readonly config?: Readonly<Record<string, object>>
  /** Default: the embedded store in a temporary folder. */
  readonly memoryStore?: boolean
  /** URL of a database instead. */
  readonly mongodb?: string
  readonly database?: string
}

/** Where the server listens. */
export interface Place {
  readonly domain: string
  readonly ca: string
  readonly ports: {
    readonly c2s: number
    readonly c2sTls: number
    readonly http: number
    readonly https: number
  }
}

/** Commands to the child. */
export interface Commands {
  start(options: StageOptions): Promise<Place>
  /** Makes accounts with the same password. */
  accounts(names: readonly string[], password: string): Promise<void>
  /** Puts contacts (bare JIDs) into the store of an account that is not online; `request`: they wait for an answer. */
  roster(
    local: string,
    contacts: readonly string[],
    how: { readonly to?: boolean; readonly from?: boolean; readonly request?: boolean },
  ): Promise<void>
  /** Puts messages with a peer into the archive of an account. */
  archive(local: string, peer: string, count: number): Promise<void>
  /** All sessions of the crowd are lost at once. */
  disperse(): Promise<void>
  /** Available sessions of these accounts that take everything and send nothing. */
  crowd(names: readonly string[]): Promise<void>
  deleteAccount(local: string): Promise<void>
  setPassword(local: string, password: string): Promise<void>
  sessions(): Promise<{ readonly streams: number; readonly bound: number }>
  /** Bytes in use after collecting garbage: heap and what hangs on it, and the whole process. */
  memory(): Promise<{ readonly used: number; readonly rss: number }>
  /** Longest time since the last call that the event loop was busy in one go, in milliseconds of processor time. */
  busiest(): Promise<number>
  /** Error lines of the log since the last call. */
  errors(): Promise<readonly string[]>
  stop(): Promise<void>
}

/** Parent to child. */
export interface Order {
  readonly id: number
  readonly command: keyof Commands
  readonly args: readonly unknown[]
}
/** Child to parent. */
export interface Answer {
  readonly id: number
  readonly value?: unknown
  readonly error?: string
}
