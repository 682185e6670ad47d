/// <reference types="node" />
import { EventEmitter } from 'node:events'
import { IncomingMessage, ServerResponse } from 'node:http'

/** express-session's middleware, on the component. */
declare function session (options?: session.SessionOptions): session.Middleware

declare namespace session {
  type Middleware = (req: any, res: any, next: (error?: unknown) => void) => void

  /** What the application keeps in a session. Add to it: `declare module 'edge-session' { interface SessionData { … } }` */
  interface SessionData {
    cookie: Cookie
  }

  interface CookieOptions {
    /** Default: `/`. Requests to what is not below it get no session. */
    path?: string | undefined
    domain?: string | undefined
    /** Milliseconds since the last save or touch; none: until the browser closes. */
    maxAge?: number | null | undefined
    expires?: Date | null | undefined
    /** Default: true. */
    httpOnly?: boolean | undefined
    secure?: boolean | 'auto' | undefined
    sameSite?: boolean | 'strict' | 'lax' | 'none' | 'auto' | undefined
    partitioned?: boolean | undefined
    priority?: 'low' | 'medium' | 'high' | undefined
  }

  interface SessionOptions {
    /** The first signs, all verify. */
    secret?: string | Uint8Array | ReadonlyArray<string | Uint8Array> | undefined
    /** The cookie's name. Default: `connect.sid`. */
    name?: string | undefined
    /** Any store that was written for express-session. Default: a `MemoryStore`. */
    store?: StoreLike | undefined
    /** A new session's identifier, unpredictable. Default: the component's, of 24 random bytes. */
    genid?: ((req: any) => string) | undefined
    cookie?: CookieOptions | ((req: any) => CookieOptions) | undefined
    resave?: boolean | undefined
    saveUninitialized?: boolean | undefined
    rolling?: boolean | undefined
    unset?: 'keep' | 'destroy' | undefined
    proxy?: boolean | undefined
    /** Where defaults come from. Default: `express`, express-session's. */
    preset?: 'express' | 'safe' | undefined
    /** Accept secrets of fewer than 32 bytes. Default: as the preset, `express` accepts them. */
    allowWeakSecret?: boolean | undefined
    /**
     * What a save does when the stored session changed since it was loaded. `merge`, the safe
     * preset's, reads it again before it writes: a moment remains between the two.
     */
    conflicts?: 'merge' | 'overwrite' | undefined
    /** What a visitor gets while the store fails. Default: `deny`, the error handler. */
    onStoreError?: 'deny' | 'anonymous' | undefined
    /** The largest session that is stored, in bytes of its JSON text. */
    maxSessionBytes?: number | undefined
  }

  class Cookie implements CookieOptions {
    constructor (options?: CookieOptions)
    originalMaxAge: number | null
    path: string
    domain?: string | undefined
    get maxAge (): number | null
    set maxAge (millis: number | Date | null | undefined)
    get expires (): Date | null
    set expires (date: Date | null | undefined)
    httpOnly: boolean
    secure?: boolean | 'auto' | undefined
    sameSite?: boolean | 'strict' | 'lax' | 'none' | 'auto' | undefined
    partitioned?: boolean | undefined
    priority?: 'low' | 'medium' | 'high' | undefined
    readonly data: CookieOptions & { originalMaxAge: number | null }
    toJSON (): this['data']
  }

  class Session {
    readonly id: string
    readonly req: IncomingMessage
    cookie: Cookie
    touch (): this
    resetMaxAge (): this
    save (callback?: (error?: any) => void): this
    reload (callback: (error?: any) => void): this
    destroy (callback?: (error?: any) => void): this
    regenerate (callback: (error?: any) => void): this
  }

  /** What is asked of a store. */
  interface StoreLike {
    get (sid: string, callback: (error?: any, session?: any) => void): void
    set (sid: string, session: any, callback?: (error?: any) => void): void
    destroy (sid: string, callback?: (error?: any) => void): void
    touch? (sid: string, session: any, callback?: (error?: any) => void): void
  }

  abstract class Store extends EventEmitter {
    regenerate (req: any, callback: (error?: any) => any): void
    load (sid: string, callback: (error?: any, session?: Session & SessionData) => any): void
    createSession (req: any, session: SessionData): Session & SessionData
    generate (req: any): void
    abstract get (sid: string, callback: (error?: any, session?: SessionData | null) => void): void
    abstract set (sid: string, session: SessionData, callback?: (error?: any) => void): void
    abstract destroy (sid: string, callback?: (error?: any) => void): void
    all? (callback: (error: any, sessions?: SessionData[] | Record<string, SessionData> | null) => void): void
    length? (callback: (error: any, length?: number) => void): void
    clear? (callback?: (error?: any) => void): void
    touch? (sid: string, session: SessionData, callback?: (error?: any) => void): void
  }

  /** For development: it forgets nothing until the process ends. */
  class MemoryStore extends Store {
    get (sid: string, callback: (error?: any, session?: SessionData | null) => void): void
    set (sid: string, session: SessionData, callback?: (error?: any) => void): void
    destroy (sid: string, callback?: (error?: any) => void): void
  }

  /** The options cannot be used, and all that is wrong with them. */
  class OptionsError extends TypeError {
    readonly problems: ReadonlyArray<{ readonly name: string, readonly message: string }>
  }
}

declare global {
  namespace Express {
    type EdgeSessionStore = session.Store

    interface Request {
      session: session.Session & session.SessionData
      sessionID: string
      sessionStore: EdgeSessionStore
    }
  }
}

export = session
