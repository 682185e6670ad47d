// express-session's Session: `req.session`.
import { Cookie } from './cookie.js'

export class Session {
  #req
  #id
  /** What the component knows of it: a `Visit`'s business. */
  #record

  constructor (req, data, record) {
    this.#req = req
    this.#id = req.sessionID
    this.#record = record
    if (typeof data !== 'object' || data === null) return
    for (const key in data) {
      // What the prototypes have is no data.
      if (!(key in this)) this[key] = data[key]
    }
  }

  // As express-session's own properties they are not enumerable, and cannot be assigned.
  get req () { return this.#req }

  get id () { return this.#id }

  /** Not of a session that a store made by itself. */
  static recordOf (session) {
    return #record in session ? session.#record : undefined
  }

  touch () { return this.resetMaxAge() }

  resetMaxAge () {
    this.cookie.maxAge = this.cookie.originalMaxAge
    return this
  }

  save (callback = () => {}) {
    const record = Session.recordOf(this)
    if (record) record.save(this, callback)
    else this.req.sessionStore.set(this.id, this, callback)
    return this
  }

  reload (callback) {
    const { req } = this
    req.sessionStore.get(this.id, (error, found) => {
      if (error) return callback(error)
      if (!found) return callback(new Error('failed to load session'))
      // Not by the store's createSession, which in stores is express-session's.
      req.session = inflate(req, found, Session.recordOf(this))
      callback()
    })
    return this
  }

  destroy (callback) {
    const { req } = this
    const record = Session.recordOf(this)
    if (record) record.isDestroyed = true
    delete req.session
    req.sessionStore.destroy(this.id, callback)
    return this
  }

  regenerate (callback) {
    this.req.sessionStore.regenerate(this.req, callback)
    return this
  }
}

/** The session of a request, from what its store found. */
export function inflate (req, found, record) {
  found.cookie = inflateCookie(found.cookie)
  return new Session(req, found, record)
}

export function inflateCookie (stored) {
  const { expires, originalMaxAge } = stored
  const cookie = new Cookie(stored)
  if (typeof expires === 'string') cookie._expires = new Date(expires)
  cookie.originalMaxAge = originalMaxAge
  return cookie
}
