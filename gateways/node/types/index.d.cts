/// <reference types="node" />
import { CipherKey } from 'node:crypto'
import { EventEmitter } from 'node:events'
// @ts-ignore: where there are no types of Express, its requests are anything.
import express = require('express')

/** express-session's middleware, on the component. */
declare function session (options?: session.SessionOptions): session.Middleware

declare namespace session {
  type Middleware = (req: any, res: any, next: (error?: any) => void) => void

  /** What the application keeps in a session. Add to it: `declare module 'edge-session' { interface SessionData { … } }` */
  interface SessionData {
    cookie: Cookie
  }

  interface CookieOptions {
    /** Default: `/`. Requests to what is not below it get no session. */
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
    /** Does nothing, as in express-session: the cookie is signed. */
    signed?: boolean | undefined
    /** Does nothing, as in express-session. */
    encode?: ((value: string) => string) | undefined
  }

  interface SessionOptions {
    /** The first signs, all verify. */
    secret: CipherKey | ReadonlyArray<CipherKey>
    /** The cookie's name. Default: `connect.sid`. */
    name?: string | undefined
    /** Any store that was written for express-session. Default: a `MemoryStore`. */
    store?: StoreLike | undefined
    /** A new session's identifier, unpredictable. Default: the component's, of 24 random bytes. */
    genid?(req: express.Request): string
    cookie?: CookieOptions | ((req: express.Request) => CookieOptions) | undefined
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

  /** A session's cookie; what a store was given, too, where only what was set is there. */
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
    /** That of the request. Cannot be assigned. */
    id: string
    cookie: Cookie
    touch (): this
    resetMaxAge (): this
    /** Store it now. Without a callback, these methods return promises. */
    save (): Promise<void>
    save (callback: (error: any) => void): this
    save (callback?: (error: any) => void): this | Promise<void>
    /** Read it again: `req.session` is what is stored. */
    reload (): Promise<void>
    reload (callback: (error: any) => void): this
    /** Delete it: `req.session` is undefined. */
    destroy (): Promise<void>
    destroy (callback: (error: any) => void): this
    /** Delete it, and begin an empty one under a new identifier: at login. */
    regenerate (): Promise<void>
    regenerate (callback: (error: any) => void): this
  }

  /** What is asked of a store. */
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

  /** For development: it forgets nothing until the process ends. */
  class MemoryStore extends Store {
    get (sid: string, callback: (error: any, session?: SessionData | null) => void): void
    set (sid: string, session: SessionData, callback?: (error?: any) => void): void
    destroy (sid: string, callback?: (error?: any) => void): void
    all (callback: (error: any, sessions?: { [sid: string]: SessionData } | null) => void): void
    length (callback: (error: any, length?: number) => void): void
    clear (callback?: (error?: any) => void): void
    touch (sid: string, session: SessionData, callback?: () => void): void
  }

  /** The options cannot be used, and all that is wrong with them. */
  class OptionsError extends TypeError {
    readonly problems: ReadonlyArray<{ readonly name: string, readonly message: string }>
  }
}

declare global {
  namespace Express {
    type SessionStore = session.Store & { generate: (req: Request) => void }

    // They are not there before the middleware.
    interface Request {
      session: session.Session & Partial<session.SessionData>
      sessionID: string
      sessionStore: SessionStore
    }
  }
}

export = session
