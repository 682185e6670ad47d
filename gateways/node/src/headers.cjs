// Sessions of an application behind the gateway: `req.session` as express-session's, made of the
// headers that the gateway tells, and answered by headers. The store is the gateway's.
'use strict'

const TELLS = 'edge-session'
const NAMES = 'edge-session-id'

const NOWHERE = 'the gateway has no session for this request, so nothing can be stored in it: the path is outside ' +
  'cookie.path; gateway.sessions is "shared" and the application owns the sessions; or another gateway, such as nginx, ' +
  'forwards the request itself, so that only the session API of edge-session can change it'

/** Express middleware, in place of `session(options)`. */
function headerSessions () {
  return function (req, res, next) {
    if (req.session) return next()
    if (visits.has(req)) {
      // The one before was destroyed.
      begin(req, {})
      return next()
    }
    let data
    try {
      data = told(req.headers)
    } catch (error) {
      return next(error)
    }
    req.sessionID = req.headers[NAMES]
    begin(req, data)
    const text = JSON.stringify(req.session)
    const visit = { before: text, saved: text, action: undefined }
    visits.set(req, visit)
    const { writeHead } = res
    let isAnswered = false
    let isTold = false
    res.writeHead = function (...head) {
      if (!isAnswered) {
        try {
          answer(req, res, visit)
          isAnswered = true
        } catch (error) {
          // Whoever makes a page of the error must be able to send it: the second time, nothing
          // is changed.
          isAnswered = isTold
          isTold = true
          if (!isAnswered) throw error
        }
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
      'Let the application listen only where the gateway alone can reach it. Behind a gateway that only asks edge-session ' +
      '(forward authentication), use its session API instead')
  }
  let data
  try {
    data = JSON.parse(text)
  } catch {
    // Its message would quote the session.
  }
  if (data === null || typeof data !== 'object' || Array.isArray(data)) {
    throw new Error('the Edge-Session header is not a JSON object: does another proxy set it?')
  }
  return data
}

/** Tell the gateway what the application wants. */
function answer (req, res, { before, action }) {
  const { session } = req
  // null: it stays as it is.
  const now = session ? JSON.stringify(session) : undefined
  const isChanged = now !== undefined && now !== before
  if (!action && !isChanged) return
  if (!req.headers[NAMES]) throw new Error(NOWHERE)
  // What was destroyed and has begun once more is another session.
  const begins = action === 'destroy' && now !== undefined && now !== '{}'
  const data = now !== undefined && (begins || action !== 'destroy') ? toAscii(whole(now, req.headers[TELLS])) : undefined
  if (action) res.setHeader('Edge-Session-Action', begins ? 'regenerate' : action)
  if (data !== undefined) res.setHeader('Edge-Session', data)
}

/** All data, of this JSON. What did not change has the text that it came with: JavaScript cannot hold all numbers. */
function whole (json, header) {
  const came = members(header)
  const texts = Object.entries(JSON.parse(json)).map(([key, value]) => {
    const [text, old] = [JSON.stringify(value), came.get(key)]
    const isOld = old !== undefined && JSON.stringify(JSON.parse(old)) === text
    return `${JSON.stringify(key)}:${isOld ? old : text}`
  })
  return `{${texts.join(',')}}`
}

/** The text of each value of a JSON object that has been parsed already. */
function members (json) {
  const found = new Map()
  let depth = 0
  let start = -1
  let key
  for (let at = 0; at < json.length; at++) {
    const char = json[at]
    if (char === '"') {
      const from = at
      for (at++; json[at] !== '"'; at++) if (json[at] === '\\') at++
      if (depth === 1 && start === -1) key = JSON.parse(json.slice(from, at + 1))
    } else if (char === '{' || char === '[') {
      depth++
    } else if (char === ':' && depth === 1 && start === -1) {
      start = at + 1
    } else {
      const ends = char === '}' || char === ']'
      if (depth === 1 && start !== -1 && (char === ',' || ends)) {
        found.set(key, json.slice(start, at).trim())
        start = -1
      }
      if (ends) depth--
    }
  }
  return found
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
  save (callback) {
    const { req } = this
    return done(this, callback, () => { visits.get(req).saved = JSON.stringify(this) })
  }

  /** The gateway does that at every request. */
  touch () { return this }

  resetMaxAge () { return this }

  /** The data as they were saved last, or as the request came with them. */
  reload (callback) {
    const { req } = this
    return done(this, callback, () => {
      const { saved } = visits.get(req)
      if (saved === undefined) throw new Error('failed to load session')
      begin(req, JSON.parse(saved))
    })
  }

  /** Empty, and under a new identifier once the answer has reached the gateway. */
  regenerate (callback) {
    const { req } = this
    return done(this, callback, () => {
      end(req, 'regenerate')
      begin(req, {})
    })
  }

  destroy (callback) {
    const { req } = this
    return done(this, callback, () => {
      end(req, 'destroy')
      delete req.session
    })
  }
}

function end (req, action) {
  const visit = visits.get(req)
  visit.action = action
  visit.saved = undefined
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
