// express-session's Session: `req.session`.
import { Cookie } from './cookie.js'

/** The component's state of a session, used by `Visit`. */
const RECORD = Symbol('record')

export class Session {
  constructor (req, data, record) {
    // As in express-session, these are not enumerable, cannot be assigned, and are accessible
    // through a Proxy.
    Object.defineProperties(this, {
      req: { value: req },
      id: { value: req.sessionID },
      [RECORD]: { value: record }
    })
    if (typeof data !== 'object' || data === null) return
    for (const key in data) {
      // Names that the prototypes have are not data.
      if (!(key in this)) this[key] = data[key]
    }
  }

  /** Returns nothing for a session that a store created. */
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
        // Without the store's createSession, which may be that of express-session.
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

/** Returns the session if there is a callback, otherwise a promise. */
function answer (session, callback, begin) {
  if (callback) {
    begin(callback)
    return session
  }
  const promise = new Promise((resolve, reject) => begin(error => error ? reject(error) : resolve()))
  // A rejection that is not awaited must not end the process.
  promise.catch(() => {})
  return promise
}

/** Creates a request's session from the store's result. */
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
