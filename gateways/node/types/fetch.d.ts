export type Millis = number

/** A session as it is stored. */
export interface Stored {
  /** JSON text, byte for byte as it was written. */
  data: string
  /** When it ends, in milliseconds since the Unix epoch; none: never. */
  expires?: Millis | undefined
  /** When it was last saved or touched, where the store says so. */
  touched?: Millis | undefined
}

export interface Content {
  data: string
  expires: Millis
}

type Maybe<T> = T | Promise<T>

/** true: done; false: there is no such session; else what is stored instead of what was expected. */
export type Changed = boolean | Stored

/**
 * Where sessions are kept. To a store an expired session is a missing one. With `expected`,
 * it compares and writes in one atomic operation.
 */
export interface Store {
  load (id: string): Maybe<Stored | null | undefined>
  /** Never overwrites: false where the identifier is in use. */
  create (id: string, content: Content): Maybe<boolean>
  /** Without `expected`, stores in any case, and creates what is missing. */
  replace (id: string, content: Content, expected?: string): Maybe<Changed>
  /** Moves the expiry. Never creates, never changes the text. */
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
  /** Of 32 bytes or more. The first signs, all verify. */
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
  /** true: believe X-Forwarded-Proto. Else the request's URL says whether it is secure. */
  proxy?: boolean | undefined
  /** Seconds in the store of a session whose cookie has no expiry. */
  ttl?: number | undefined
  /** Seconds in which a session is not touched again. */
  touchAfter?: number | undefined
  conflicts?: 'merge' | 'overwrite' | undefined
  onStoreError?: 'deny' | 'anonymous' | undefined
  maxSessionBytes?: number | undefined
  /** Milliseconds that the store may take for one operation. Default: 2000. */
  storeTimeout?: Millis | undefined
  /** Is told why a session failed. Default: `console.error`. */
  onError?: ((error: unknown) => void) | undefined
  /** The component's core modules by their file names, where they cannot be found by themselves. */
  modules?: (() => Maybe<Record<string, WebAssembly.Module>>) | undefined
}

export type Origin =
  'loaded' | 'absent' | 'malformed' | 'forged' | 'oversized' | 'unknown' | 'damaged' | 'detached'

export interface Session<Data extends object = Record<string, any>> {
  /** A secret as good as a password: never log or show it. */
  readonly id: string
  /** Where it comes from. */
  readonly origin: Origin
  readonly isNew: boolean
  /** What the application keeps: change it as you like. */
  data: Data
  /** When the stored session ends unless it is used; null: not stored yet, or never. */
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
  /** How long this session and its cookie live from the last request on: "remember me". */
  maxAge: Millis | null
  /** Go on under a new identifier with the data: at login above all. */
  renew (): void
  /** Delete it, and begin an empty one under a new identifier. */
  regenerate (): void
  /** Delete it and clear the browser's cookie: logout. */
  destroy (): void
  /** What `unset` says: forget this request's changes, or delete it. */
  unset (): void
}

/**
 * A handler with a session for each request. What it changed is stored before the response is
 * returned. The session is null where the path is outside the cookie's. In Bun, the handler may
 * upgrade the request by the server that it gets, and answer nothing: that happens when the session
 * is stored.
 */
export function withSession<
  Data extends object = Record<string, any>,
  Rest extends unknown[] = any[],
  Answer extends Response | undefined | void = Response
> (
  handler: (request: Request, session: Session<Data>, ...rest: Rest) => Maybe<Answer>,
  options: Options
): (request: Request, ...rest: Rest) => Promise<Answer>

/** Sessions in memory, of one process. */
export class MemoryStore implements Store {
  /** Above `maxSessions` (default: 100 000), those leave first that were not used for longest. */
  constructor (options?: { maxSessions?: number })
  readonly size: number
  load (id: string): Stored | undefined
  create (id: string, content: Content): boolean
  replace (id: string, content: Content, expected?: string): Changed
  touch (id: string, expires: Millis): boolean
  delete (id: string, expected?: string): Changed
}

/** A store throws this where it can never keep such a text. */
export class Refused extends Error {}

/** The options cannot be used, and all that is wrong with them. */
export class OptionsError extends TypeError {
  readonly problems: ReadonlyArray<{ readonly name: string, readonly message: string }>
}
