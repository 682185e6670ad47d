// Sessions of an application behind the gateway: `req.session` as express-session's, made of the
// headers that the gateway tells, and answered by headers. The store is the gateway's.
'use strict'

const TELLS = 'edge-session'
const NAMES = 'edge-session-id'

/** Express middleware, in place of `session(options)`. */
function headerSessions () {
  return function (req, res, next) {
    if (req.session) return next()
    let data
    try {
      data = told(req.headers)
    } catch (error) {
      return next(error)
    }
    req.sessionID = req.headers[NAMES]
    begin(req, data)
    const visit = { before: JSON.stringify(req.session), action: undefined }
    visits.set(req, visit)
    const { writeHead } = res
    let isAnswered = false
    res.writeHead = function (...head) {
      if (!isAnswered) {
        isAnswered = true
        answer(req, res, visit)
      }
      return writeHead.apply(this, head)
    }
    next()
  }
}

/** What becomes of each request's session. */
const visits = new WeakMap()

/** The data that the gateway tells. */
function told (headers) {
  const text = headers[TELLS]
  if (text === undefined || headers[NAMES] === undefined) {
    throw new Error('the request has no Edge-Session header: it did not come through the gateway. ' +
      'Let the application listen where only the gateway reaches it')
  }
  let data
  try {
    data = JSON.parse(text)
  } catch {
    // Its message would quote the session.
  }
  if (data === null || typeof data !== 'object' || Array.isArray(data)) {
    throw new Error('the Edge-Session header is not a JSON object: is there another proxy that sets it?')
  }
  return data
}

/** Tell the gateway what the application wants. */
function answer (req, res, { before, action }) {
  const { session } = req
  if (action === 'destroy' && !session) {
    res.setHeader('Edge-Session-Action', 'destroy')
    return
  }
  if (action) res.setHeader('Edge-Session-Action', action)
  // null: it stays as it is.
  if (!session) return
  const text = JSON.stringify(session)
  if (action || text !== before) res.setHeader('Edge-Session', toAscii(text))
}

/** Node sends Latin-1 in headers, and the gateway takes UTF-8: ASCII is both. */
function toAscii (text) {
  return text.replace(/[\u007f-\uffff]/g, unit => '\\u' + unit.charCodeAt(0).toString(16).padStart(4, '0'))
}

function begin (req, data) {
  req.session = new Session(req)
  fill(req.session, data)
}

function fill (session, data) {
  for (const [key, value] of Object.entries(data)) {
    // express-session drops these, too: they would stand in the methods' place.
    if (key in session) continue
    Object.defineProperty(session, key, { value, configurable: true, enumerable: true, writable: true })
  }
}

/** A session of a request. Its own enumerable properties are the data. */
class Session {
  constructor (req) {
    hide(this, 'req', req)
    // The gateway's configuration says what the cookie is like.
    hide(this, 'cookie', { originalMaxAge: null, expires: null, path: '/', httpOnly: true })
  }

  get id () { return this.req.sessionID }

  /** The gateway saves it before the answer reaches the visitor. */
  save (callback) { return done(this, callback) }

  /** The gateway does that at every request. */
  touch () { return this }

  resetMaxAge () { return this }

  /** The data as the request came with them. */
  reload (callback) {
    const { req } = this
    return done(this, callback, () => begin(req, told(req.headers)))
  }

  /** Empty, and under a new identifier once the answer has reached the gateway. */
  regenerate (callback) {
    const { req } = this
    return done(this, callback, () => {
      visits.get(req).action = 'regenerate'
      begin(req, {})
    })
  }

  destroy (callback) {
    const { req } = this
    return done(this, callback, () => {
      visits.get(req).action = 'destroy'
      delete req.session
    })
  }
}

function hide (object, key, value) {
  Object.defineProperty(object, key, { value, configurable: true, enumerable: false, writable: true })
}

/** The session itself where there is a callback, else a promise. */
function done (session, callback, act) {
  try {
    act?.()
  } catch (error) {
    if (!callback) return Promise.reject(error)
    queueMicrotask(() => callback(error))
    return session
  }
  if (!callback) return Promise.resolve()
  // Later, as with every store.
  queueMicrotask(() => callback())
  return session
}

module.exports = headerSessions
module.exports.headerSessions = headerSessions
