export type Millis = number

/** A stored session. */
export interface Stored {
  /** The JSON text, byte for byte as it was written. */
  data: string
  /** When the session expires, in milliseconds since the Unix epoch; none: never. */
  expires?: Millis | undefined
  /** When the session was last saved or touched, if the store records it. */
  touched?: Millis | undefined
}

export interface Content {
  data: string
  expires: Millis
}

type Maybe<T> = T | Promise<T>

/** true: done; false: the session does not exist; otherwise what is stored instead of `expected`. */
export type Changed = boolean | Stored

/**
 * Session storage. A store treats an expired session as missing. With `expected`, comparing and
 * writing must be one atomic operation.
 */
export interface Store {
  load (id: string): Maybe<Stored | null | undefined>
  /** Never overwrites: returns false if the identifier is in use. */
  create (id: string, content: Content): Maybe<boolean>
  /** Without `expected`, the write is unconditional (an upsert). */
  replace (id: string, content: Content, expected?: string): Maybe<Changed>
  /** Sets a new expiry. Never creates a session or changes its text. */
  touch (id: string, expires: Millis): Maybe<boolean>
  delete (id: string, expected?: string): Maybe<Changed>
}

export interface CookieOptions {
  path?: string | undefined
  domain?: string | undefined
  /** Milliseconds since the last save or touch; none: until the browser closes. */
  maxAge?: Millis | undefined
  expires?: Date | undefined
  httpOnly?: boolean | undefined
  secure?: boolean | 'auto' | undefined
  sameSite?: boolean | 'strict' | 'lax' | 'none' | 'auto' | undefined
  partitioned?: boolean | undefined
  priority?: 'low' | 'medium' | 'high' | undefined
}

export interface Options {
  /** At least 32 bytes each. The first one signs; all of them verify. */
  secret: string | Uint8Array | ReadonlyArray<string | Uint8Array>
  /** Default: a `MemoryStore`. */
  store?: Store | undefined
  /** Default: `safe`. */
  preset?: 'safe' | 'express' | undefined
  /** Default: `connect.sid`. */
  name?: string | undefined
  cookie?: CookieOptions | undefined
  allowWeakSecret?: boolean | undefined
  resave?: boolean | undefined
  saveUninitialized?: boolean | undefined
  rolling?: boolean | undefined
  unset?: 'keep' | 'destroy' | undefined
  /** true: trust X-Forwarded-Proto. Otherwise the request's URL decides whether it is secure. */
  proxy?: boolean | undefined
  /** Lifetime in the store, in seconds, of a session whose cookie has no expiry. */
  ttl?: number | undefined
  /** A session that was touched more recently than this, in seconds, is not touched again. */
  touchAfter?: number | undefined
  conflicts?: 'merge' | 'overwrite' | undefined
  onStoreError?: 'deny' | 'anonymous' | undefined
  maxSessionBytes?: number | undefined
  /** How long the store may take for one operation, in milliseconds. Default: 2000. */
  storeTimeout?: Millis | undefined
  /** Called with the reason when a session fails. Default: `console.error`. */
  onError?: ((error: unknown) => void) | undefined
  /**
   * Returns the component's core modules (`WebAssembly.Module`) by file name, for environments in which they cannot be
   * found automatically.
   */
  modules?: (() => Maybe<Record<string, object>>) | undefined
}

export type Origin =
  'loaded' | 'absent' | 'malformed' | 'forged' | 'oversized' | 'unknown' | 'damaged' | 'detached'

export interface Session<Data extends object = Record<string, any>> {
  /** A secret, like a password: never log or show it. */
  readonly id: string
  /** Where the session comes from. */
  readonly origin: Origin
  readonly isNew: boolean
  /** The application's data. It may be modified or replaced. */
  data: Data
  /** When the stored session expires unless it is used; null: not stored yet, or never. */
  readonly expires: Date | null
  readonly cookie: Readonly<{
    originalMaxAge: Millis | null
    expires: Date | null
    path: string
    domain?: string
    httpOnly: boolean
    secure: boolean
    sameSite?: 'strict' | 'lax' | 'none'
    partitioned: boolean
    priority?: 'low' | 'medium' | 'high'
  }>
  /** The lifetime of this session and its cookie since the last request: "remember me". */
  maxAge: Millis | null
  /** Continues under a new identifier with the same data: call it at login. */
  renew (): void
  /** Deletes the session, and starts an empty one under a new identifier. */
  regenerate (): void
  /** Deletes the session and clears the browser's cookie: logout. */
  destroy (): void
  /** Drops this request's changes, or deletes the session, as the option `unset` says. */
  unset (): void
}

/**
 * Adds a session to each request of a handler. Changes are stored before the response is returned.
 * The session is null if the path is outside the cookie's path. In Bun, the handler may upgrade the
 * request through the server that it receives, and return nothing: the upgrade happens once the
 * session is stored.
 */
export function withSession<
  Data extends object = Record<string, any>,
  Rest extends unknown[] = any[],
  Answer extends Response | undefined | void = Response
> (
  handler: (request: Request, session: Session<Data>, ...rest: Rest) => Maybe<Answer>,
  options: Options
): (request: Request, ...rest: Rest) => Promise<Answer>

/** Sessions in one process's memory. */
export class MemoryStore implements Store {
  /** Above `maxSessions` (default: 100 000), the least recently used sessions are removed. */
  constructor (options?: { maxSessions?: number })
  readonly size: number
  load (id: string): Stored | undefined
  create (id: string, content: Content): boolean
  replace (id: string, content: Content, expected?: string): Changed
  touch (id: string, expires: Millis): boolean
  delete (id: string, expected?: string): Changed
}

/** Thrown by a store that can never store a text. */
export class Refused extends Error {}

/** The options are not valid; `problems` lists everything that is wrong. */
export class OptionsError extends TypeError {
  readonly problems: ReadonlyArray<{ readonly name: string, readonly message: string }>
}
