// Compiled, not run: as ECMAScript modules, with what others declare of requests.
import { EventEmitter } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import express, { type NextFunction, type Request, type RequestHandler, type Response } from 'express'
import session, { Cookie, MemoryStore, Session, Store, type CookieOptions, type SessionData, type SessionOptions } from 'express-session'
import * as all from 'express-session'

declare module 'express-session' {
  interface SessionData {
    returnTo?: string
    passport?: { user?: string }
  }
}

declare module 'node:http' {
  interface IncomingMessage {
    socketSession?: Session & Partial<SessionData>
  }
}

type Callback<T> = (error: unknown, result?: T) => void

// A store of somebody's own, by promises.
export class PromiseStore extends Store {
  readonly #kept: Map<string, string> = new Map()
  readonly #cookie: CookieOptions = { maxAge: 1000, sameSite: true }

  override get (sid: string, callback: Callback<SessionData | null>): void {
    Promise.resolve(this.#kept.get(sid)).then(text => callback(null, text ? JSON.parse(text) : null), callback)
  }

  override set (sid: string, data: SessionData, callback?: (error?: unknown) => void): void {
    const end = data.cookie.expires ?? new Date(Date.now() + (data.cookie.originalMaxAge ?? this.#cookie.maxAge ?? 0))
    this.#kept.set(sid, JSON.stringify({ ...data, end: end.toISOString() }))
    callback?.()
  }

  override destroy (sid: string, callback?: (error?: unknown) => void): void {
    this.#kept.delete(sid)
    callback?.()
  }

  override length (callback: Callback<number>): void { callback(null, this.#kept.size) }
  override clear (callback?: (error?: unknown) => void): void { this.#kept.clear(); callback?.() }
}

export function middlewares ({ secret, ...others }: SessionOptions): RequestHandler[] {
  const options: SessionOptions = { ...others, secret: Array.isArray(secret) ? [...secret] : secret, store: new PromiseStore() }
  return [session(options), all.default(options)]
}

const promised = (request: Request, method: 'regenerate' | 'destroy' | 'reload' | 'save') =>
  new Promise<void>((resolve, reject) => {
    request.session[method]((error: unknown) => { error ? reject(error) : resolve() })
  })

export async function login (request: Request, response: Response, next: NextFunction): Promise<void> {
  try {
    const { returnTo = '/' } = request.session
    await promised(request, 'regenerate')
    Object.assign(request.session, { passport: { user: 'zoe' } } satisfies Partial<SessionData>)
    const { cookie }: { cookie: Cookie } = request.session
    cookie.maxAge = cookie.originalMaxAge === null ? 3600000 : cookie.originalMaxAge * 2
    cookie.sameSite = 'none'
    cookie.secure = true
    if (cookie.expires instanceof Date && cookie.expires.getTime() > Date.now()) cookie.expires = null
    await promised(request, 'save')
    response.redirect(returnTo)
  } catch (error) { next(error) }
}

export function users (store: Store, callback: Callback<string[]>): void {
  if (!store.all) return callback(new Error('this store tells nobody'))
  store.all((error, sessions) => {
    const list: SessionData[] = Array.isArray(sessions) ? sessions : Object.values(sessions ?? {})
    callback(error, list.flatMap(({ passport }) => passport?.user ?? []))
  })
}

const memory: MemoryStore & EventEmitter = new MemoryStore()
memory.once('connect', () => users(memory, console.log))
createServer((request: IncomingMessage, response) => {
  const { socketSession } = request
  const keys: (keyof SessionData)[] = ['cookie', 'passport', 'returnTo']
  response.end(keys.map(key => String(socketSession?.[key])).join())
})
const app = express()
app.use(middlewares({ secret: 'a' }))
app.post('/login', login)
app.locals.find = (sid: string) => memory.load(sid, (error, found) => { console.log(error, found?.passport?.user) })
