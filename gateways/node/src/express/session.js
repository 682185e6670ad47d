// express-session's Session: `req.session`.
import { Cookie } from './cookie.js'

/** What the component knows of a session: a `Visit`'s business. */
const RECORD = Symbol('record')

export class Session {
  constructor (req, data, record) {
    // As express-session's own properties they are not enumerable, cannot be assigned, and are
    // there through a Proxy, too.
    Object.defineProperties(this, {
      req: { value: req },
      id: { value: req.sessionID },
      [RECORD]: { value: record }
    })
    if (typeof data !== 'object' || data === null) return
    for (const key in data) {
      // What the prototypes have is no data.
      if (!(key in this)) this[key] = data[key]
    }
  }

  /** Not of a session that a store made by itself. */
  static recordOf (session) {
    return session[RECORD]
  }

  touch () { return this.resetMaxAge() }

  resetMaxAge () {
    this.cookie.maxAge = this.cookie.originalMaxAge
    return this
  }

  save (callback) {
    return answer(this, callback, done => {
      const record = Session.recordOf(this)
      if (record) record.save(this, done)
      else this.req.sessionStore.set(this.id, this, done)
    })
  }

  reload (callback) {
    return answer(this, callback, done => {
      const { req } = this
      req.sessionStore.get(this.id, (error, found) => {
        if (error) return done(error)
        if (!found) return done(new Error('failed to load session'))
        // Not by the store's createSession, which in stores is express-session's.
        req.session = inflate(req, found, Session.recordOf(this))
        done()
      })
    })
  }

  destroy (callback) {
    return answer(this, callback, done => {
      const { req } = this
      const record = Session.recordOf(this)
      if (record) record.isDestroyed = true
      delete req.session
      req.sessionStore.destroy(this.id, done)
    })
  }

  regenerate (callback) {
    return answer(this, callback, done => this.req.sessionStore.regenerate(this.req, done))
  }
}

/** The session itself where there is a callback, else a promise. */
function answer (session, callback, begin) {
  if (callback) {
    begin(callback)
    return session
  }
  const promise = new Promise((resolve, reject) => begin(error => error ? reject(error) : resolve()))
  // Who does not wait for it does not want to know, and the process goes on.
  promise.catch(() => {})
  return promise
}

/** The session of a request, from what its store found. */
export function inflate (req, found, record) {
  found.cookie = inflateCookie(found.cookie)
  return new Session(req, found, record)
}

export function inflateCookie (stored) {
  const expires = stored.expires
  const originalMaxAge = stored.originalMaxAge
  const cookie = new Cookie(stored)
  if (typeof expires === 'string') cookie._expires = new Date(expires)
  cookie.originalMaxAge = originalMaxAge
  return cookie
}
