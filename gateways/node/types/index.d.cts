/// <reference types="node" />
import { CipherKey } from 'node:crypto'
import { EventEmitter } from 'node:events'
// @ts-ignore: without Express's types, requests have the type any.
import express = require('express')

/** express-session's middleware, implemented with the component. */
declare function session (options?: session.SessionOptions): session.Middleware

declare namespace session {
  type Middleware = (req: any, res: any, next: (error?: any) => void) => void

  /** The application's session data. Extend it with: `declare module 'edge-session' { interface SessionData { … } }` */
  interface SessionData {
    cookie: Cookie
  }

  interface CookieOptions {
    /** Default: `/`. Requests outside this path get no session. */
    path?: string | undefined
    domain?: string | undefined
    /** Milliseconds since the last save or touch; none: until the browser closes. */
    maxAge?: number | undefined
    /** @deprecated Set `maxAge`. */
    expires?: Date | null | undefined
    /** Default: true. */
    httpOnly?: boolean | undefined
    secure?: boolean | 'auto' | undefined
    sameSite?: boolean | 'strict' | 'lax' | 'none' | 'auto' | undefined
    partitioned?: boolean | undefined
    priority?: 'low' | 'medium' | 'high' | undefined
    /** Has no effect, as in express-session: the cookie is signed. */
    signed?: boolean | undefined
    /** Has no effect, as in express-session. */
    encode?: ((value: string) => string) | undefined
  }

  interface SessionOptions {
    /** The first one signs; all of them verify. */
    secret: CipherKey | ReadonlyArray<CipherKey>
    /** The cookie's name. Default: `connect.sid`. */
    name?: string | undefined
    /** Any store for express-session. Default: a `MemoryStore`. */
    store?: StoreLike | undefined
    /**
     * Returns a new session's identifier, which must be unpredictable. Default: the component's, of
     * 24 random bytes.
     */
    genid?(req: express.Request): string
    cookie?: CookieOptions | ((req: express.Request) => CookieOptions) | undefined
    resave?: boolean | undefined
    saveUninitialized?: boolean | undefined
    rolling?: boolean | undefined
    unset?: 'keep' | 'destroy' | undefined
    proxy?: boolean | undefined
    /** The set of defaults. Default: `express`, those of express-session. */
    preset?: 'express' | 'safe' | undefined
    /**
     * Accept secrets of fewer than 32 bytes. Default: that of the preset; `express` accepts them.
     */
    allowWeakSecret?: boolean | undefined
    /**
     * How a save handles a session that has changed in the store since it was loaded. `merge`, the
     * safe preset's default, reads it again before it writes; between the two, another process may
     * write.
     */
    conflicts?: 'merge' | 'overwrite' | undefined
    /**
     * How requests are handled while the store fails. Default: `deny`, which calls the error
     * handler.
     */
    onStoreError?: 'deny' | 'anonymous' | undefined
    /** The maximum size of a stored session, in bytes of its JSON text. */
    maxSessionBytes?: number | undefined
  }

  /** A session's cookie. Also passed to stores, with only the settings that were set. */
  class Cookie implements CookieOptions {
    constructor (options?: CookieOptions)
    /** The lifetime that was set, in milliseconds. */
    originalMaxAge: number | null
    path?: string | undefined
    domain?: string | undefined
    maxAge?: number | undefined
    expires?: Date | null | undefined
    httpOnly?: boolean | undefined
    secure?: boolean | 'auto' | undefined
    sameSite?: boolean | 'strict' | 'lax' | 'none' | 'auto' | undefined
    partitioned?: boolean | undefined
    priority?: 'low' | 'medium' | 'high' | undefined
    signed?: boolean | undefined
  }

  class Session {
    private constructor (request: Express.Request, data: SessionData)
    /** The request's session identifier. Cannot be assigned. */
    id: string
    cookie: Cookie
    touch (): this
    resetMaxAge (): this
    /** Stores the session now. Without a callback, these methods return promises. */
    save (): Promise<void>
    save (callback: (error: any) => void): this
    save (callback?: (error: any) => void): this | Promise<void>
    /** Reads the session again: `req.session` becomes what is stored. */
    reload (): Promise<void>
    reload (callback: (error: any) => void): this
    /** Deletes the session: `req.session` becomes undefined. */
    destroy (): Promise<void>
    destroy (callback: (error: any) => void): this
    /** Deletes the session, and starts an empty one under a new identifier: call it at login. */
    regenerate (): Promise<void>
    regenerate (callback: (error: any) => void): this
  }

  /** The operations that a store must have. */
  interface StoreLike {
    get (sid: string, callback: (error?: any, session?: any) => void): void
    set (sid: string, session: any, callback?: (error?: any) => void): void
    destroy (sid: string, callback?: (error?: any) => void): void
    touch? (sid: string, session: any, callback?: (error?: any) => void): void
    on (event: string, listener: (...given: any[]) => void): unknown
  }

  abstract class Store extends EventEmitter {
    regenerate (req: express.Request, callback: (error?: any) => any): void
    load (sid: string, callback: (error: any, session?: SessionData) => any): void
    createSession (req: express.Request, session: SessionData): Session & SessionData
    abstract get (sid: string, callback: (error: any, session?: SessionData | null) => void): void
    abstract set (sid: string, session: SessionData, callback?: (error?: any) => void): void
    abstract destroy (sid: string, callback?: (error?: any) => void): void
    all? (callback: (error: any, sessions?: SessionData[] | { [sid: string]: SessionData } | null) => void): void
    length? (callback: (error: any, length?: number) => void): void
    clear? (callback?: (error?: any) => void): void
    touch? (sid: string, session: SessionData, callback?: () => void): void
  }

  /** For development: keeps all sessions until the process ends. */
  class MemoryStore extends Store {
    get (sid: string, callback: (error: any, session?: SessionData | null) => void): void
    set (sid: string, session: SessionData, callback?: (error?: any) => void): void
    destroy (sid: string, callback?: (error?: any) => void): void
    all (callback: (error: any, sessions?: { [sid: string]: SessionData } | null) => void): void
    length (callback: (error: any, length?: number) => void): void
    clear (callback?: (error?: any) => void): void
    touch (sid: string, session: SessionData, callback?: () => void): void
  }

  /** The options are not valid; `problems` lists everything that is wrong. */
  class OptionsError extends TypeError {
    readonly problems: ReadonlyArray<{ readonly name: string, readonly message: string }>
  }
}

declare global {
  namespace Express {
    type SessionStore = session.Store & { generate: (req: Request) => void }

    // Undefined before the middleware has run.
    interface Request {
      session: session.Session & Partial<session.SessionData>
      sessionID: string
      sessionStore: SessionStore
    }
  }
}

export = session
