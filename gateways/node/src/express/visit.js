// One request, in express-session's order of events: the component decides, the store is read, the
// application runs, the session is stored, the response is sent.
import { deprecate } from 'node:util'
import onHeaders from 'on-headers'
import * as bounds from '../bounds.js'
import { keepPrivate, varyByCookie } from '../caching.js'
import { edits } from './cookie.js'
import { NOTHING, Record, cookieOf, dataOf, messageOf, reasonOf } from './record.js'
import { Session, inflate } from './session.js'

const NO_PLAN = { writes: [], outcome: {} }

/** The middleware that each request's session belongs to. Several may share a store. */
const origins = new WeakMap()

const warn = deprecate(() => {}, 'cookie should be available in req.headers.cookie')

export class Visit {
  #settings
  #engine
  #req
  #next
  /** The record of the session that the request began with. */
  #first
  /** The component's last plan, and the change and session that it belongs to. */
  #plan
  /** The outcome for the cookie alone, if it differs from the plan's. */
  #sending
  #change
  #record
  #adopted
  #isTouched = false
  /** The response is no longer handled here. */
  #isOver = false
  #isEnded = false
  /** The application has read `req.session`; and whether it had when the headers were decided. */
  #isRead = false
  #varies

  constructor (settings, engine, req, next) {
    this.#settings = settings
    this.#engine = engine
    this.#req = req
    this.#next = next
  }

  // ------------------------------------------------------------------ the request comes ----

  begin (res) {
    const settings = this.#settings
    const req = this.#req
    const next = this.#next
    const path = pathOf(req)
    // A path that is made for each request is not among the component's options.
    if (settings.isDynamic && !covers(settings.cookieOptions(req).path || '/', path)) return next()
    let begun = this.#engine.begin(facts(req, settings, path, req.headers.cookie))
    if (begun.tag === 'none') return next()
    if (begun.tag === 'ready' && settings.isExpress) begun = this.#parsed(path) ?? begun

    origins.set(req, { settings, engine: this.#engine })
    req.sessionStore = settings.store
    const isNew = begun.tag === 'ready'
    if (isNew) this.#open(begun.val)
    onHeaders(res, () => this.#headers(res))
    const { end } = res
    res.end = (chunk, encoding, callback) => this.#end(res, end, chunk, encoding, callback)
    if (isNew) return next()
    req.sessionID = begun.val.id
    this.#load(begun.val)
  }

  /** The contract's loop up to `ready`. The component may load more than one session. */
  #load (visit) {
    let hasAnswered = false
    const fail = error => {
      this.#isOver = true
      this.#next(error)
    }
    const answer = (error, found) => {
      hasAnswered = true
      let further
      try {
        further = this.#loaded(visit, error, found)
      } catch (error) { return fail(error) }
      if (further) this.#load(further)
      else this.#next()
    }
    try {
      this.#settings.store.get(visit.id, answer)
    } catch (error) {
      // What the application throws is not a store error.
      if (hasAnswered) throw error
      fail(error)
    }
  }

  /** Without a cookie in the header, express-session looks for one in cookie-parser's results. */
  #parsed (path) {
    const { cookies, signedCookies } = this.#req
    const { name } = this.#settings
    const signed = signedCookies?.[name]
    const values = [typeof signed === 'string' && signed && this.#settings.signed(this.#engine, signed), cookies?.[name]]
    for (const value of values) {
      if (typeof value !== 'string' || !value.startsWith('s:')) continue
      const begun = this.#engine.begin(facts(this.#req, this.#settings, path, `${name}=${encodeURIComponent(value)}`))
      if (begun.tag !== 'load') continue
      warn()
      return begun
    }
  }

  #loaded (visit, error, found) {
    const isUnavailable = error && error.code !== 'ENOENT'
    let stored
    if (found && !error) stored = { data: bounds.stored(JSON.stringify(found), this.#settings.maxSessionBytes) }
    let begun
    try {
      begun = this.#engine.loaded(visit, isUnavailable ? { tag: 'err', val: messageOf(error) } : { tag: 'ok', val: stored })
    } catch (failure) { throw reasonOf(failure, error) }
    if (begun.tag === 'load') return begun.val
    // Throws the error of express-session if it cannot read the session either.
    if (begun.val.origin === 'damaged' && this.#settings.isExpress) inflate(this.#req, { ...found }).touch()
    this.#open(begun.val, stored, found)
  }

  #open (session, stored, found) {
    const record = new Record(this.#settings, this.#engine, this.#req, session, stored).place(found)
    if (record.failure) throw record.failure
    this.#first = record
    if (!this.#settings.isExpress) this.#watch(this.#req)
  }

  /** Reading the session makes the response depend on the cookie. */
  #watch (req) {
    let { session } = req
    Object.defineProperty(req, 'session', {
      configurable: true,
      enumerable: true,
      get: () => {
        this.#isRead = true
        return session
      },
      set: value => { session = value }
    })
  }

  // -------------------------------------------------------------- the response goes out ----

  /** Decides the cookie before the session is stored, so that streamed headers do not wait. */
  #headers (res) {
    if (this.#isOver) return
    this.#varies ??= this.#isRead
    let plan
    try {
      plan = this.#plan ?? this.#decide()
    } catch (error) {
      this.#isOver = true
      setImmediate(this.#next, error)
      return
    }
    const { setCookie, noStore } = this.#sending ?? plan.outcome
    if (setCookie !== undefined) {
      const others = res.getHeader('Set-Cookie') ?? []
      res.setHeader('Set-Cookie', [].concat(others, setCookie))
    }
    if (noStore) keepPrivate(headersOf(res))
    else if (this.#varies) varyByCookie(headersOf(res))
  }

  /**
   * Stores the session before the end of the response is sent, so that the client's next request
   * finds it. express-session sends all but the last byte before that.
   */
  #end (res, end, chunk, encoding, callback) {
    if (this.#isEnded) return false
    this.#isEnded = true
    this.#varies ??= this.#isRead
    let isSent = false
    let result = true
    // What is written after the end while the session is being stored, as with express-session.
    const late = []
    const { write } = res
    const fail = error => {
      // If nothing was sent yet, the application's error handler can respond.
      isSent = true
      this.#isOver = true
      this.#isEnded = false
      res.write = write
      this.#next(error)
    }
    const send = error => {
      if (isSent) return // A store may call back twice.
      isSent = true
      // The error handler finds that the headers were sent, and may close the connection.
      if (error && res.destroyed) setImmediate(this.#next, error)
      else if (error) res.once('close', () => this.#next(error))
      res.write = write
      try {
        if (late.length > 0 && !res.hasHeader('Content-Length')) {
          const whenSent = [chunk, encoding, callback].find(given => typeof given === 'function')
          if (chunk && chunk !== whenSent) write.call(res, chunk, encoding === whenSent ? undefined : encoding)
          for (const args of late) write.apply(res, args)
          end.call(res, whenSent)
        } else result = end.call(res, chunk, encoding, callback)
      } catch (error) { fail(error) }
    }
    try {
      const store = this.#isOver ? undefined : this.#decideStorage()
      if (store) store(send)
      else send()
      if (isSent) return result
      res.write = (...args) => late.push(args) > 0
      // For the application the response has ended: the headers can no longer be changed.
      if (!hasHeader(res)) res.writeHead(res.statusCode)
    } catch (error) { fail(error) }
    return result
  }

  // --------------------------------------------------------------------- the component ----

  /** Asks the component about the session in its current state. */
  #decide () {
    // For example the response of a timeout while the session is being loaded.
    if (!this.#first) return NO_PLAN
    const { session, sessionID } = this.#req
    let record = this.#first
    if (!session) {
      this.#change = { action: record.isDestroyed ? 'destroy' : 'unset', data: NOTHING, cookie: [] }
    } else if (typeof sessionID !== 'string') {
      return NO_PLAN
    } else {
      if (!this.#isTouched) {
        session.touch()
        this.#isTouched = true
      }
      record = Session.recordOf(session) ?? record
      if (record.failure) throw record.failure
      if (session.id !== record.visit.id) record = this.#adopt(session)
      this.#change = record.change(session, dataOf(session))
    }
    this.#record = record
    this.#plan = record.finish(record.stored, this.#change)
    if (session && this.#plan.writes.length > 0) align(session.cookie, this.#plan.writes[0].operation)
    if (session && this.#settings.isExpress) {
      if (sessionID !== session.id) this.#assigned(session, sessionID)
      else if (this.#hasOddExpiry(session)) this.#sending = this.#outcomeOfSending(session, sessionID)
    }
    return this.#plan
  }

  /**
   * `req.session` has another identifier: it was created by the store's `createSession`, or read
   * again after `req.sessionID` was assigned. express-session stores and sends it as a new one.
   */
  #adopt (session) {
    if (!this.#settings.isExpress) throw new Error('req.session has the identifier of another session')
    if (this.#adopted?.visit.id !== session.id) {
      const fresh = this.#fresh(this.#engine)
      fresh.visit.id = session.id
      this.#adopted = new Record(this.#settings, this.#engine, this.#req, fresh)
      this.#adopted.isRenewed = true
    }
    return this.#adopted
  }

  /** Returns a new session. */
  #fresh (engine) {
    return engine.begin(facts(this.#req, this.#settings, this.#settings.path, undefined)).val
  }

  /**
   * The application has assigned `req.sessionID`. express-session sends that identifier in the
   * cookie, and stores the session under its own.
   */
  #assigned (session, id) {
    const settings = this.#settings
    const isSame = this.#change.data === NOTHING && !this.#record.isRenewed
    this.#sending = isSame && !settings.saveUninitialized ? NO_PLAN.outcome : this.#outcomeOfSending(session, id)
    if (this.#record.isLoaded && isSame && !(settings.resave && settings.saveUninitialized)) this.#plan = NO_PLAN
  }

  /**
   * express-session sends the cookie of a changed session that has an `expires`, and counts `false`
   * as one. In the contract, it is none.
   */
  #hasOddExpiry ({ cookie: { expires } }) {
    return (expires === false || expires === '') && this.#record.isLoaded && this.#change.data !== NOTHING
  }

  /** Returns the outcome that sends the session's cookie with this identifier. */
  #outcomeOfSending (session, id) {
    const engine = this.#settings.sending(this.#engine)
    const { visit, text } = this.#fresh(engine)
    const change = { action: 'keep', data: NOTHING, cookie: edits(cookieOf(text), session.cookie) }
    return engine.finish({ ...visit, id }, undefined, change).outcome
  }

  /** Returns a function that stores the session; nothing if it stays as it is. */
  #decideStorage () {
    const { session, sessionID } = this.#req
    const { unset, isExpress } = this.#settings
    const plan = this.#decide()
    if (plan === NO_PLAN) return undefined
    if (!session) {
      const isDeleted = unset === 'destroy' && !this.#first.isDestroyed && typeof sessionID === 'string'
      return isDeleted ? done => this.#first.perform('delete', sessionID, done) : undefined
    }
    const record = this.#record
    const { saved, stored, visit: { id } } = record
    const change = this.#change
    // express-session stores a renewed session again after `save()`.
    if (saved === undefined || (record.isRenewed && isExpress)) return done => record.run(plan, stored, change, done)
    const data = dataOf(session)
    if (saved.data === data) {
      const isTouched = record.isLoaded && (sessionID === session.id || !isExpress)
      return isTouched ? done => record.perform('touch', id, done) : undefined
    }
    if (saved.document === undefined) return done => record.perform('replace', id, done)
    const known = { data: saved.document }
    const further = { ...change, data: { tag: 'whole', val: data } }
    const next = record.finish(known, further)
    return done => record.run(next, known, further, done)
  }
}

/** Starts an empty session under a new identifier: `store.generate(req)`. */
export function generate (latest, req) {
  const { settings, engine } = origins.get(req) ?? { settings: latest, engine: latest.engine(req) }
  const begun = engine.begin(facts(req, settings, settings.path, undefined))
  const record = new Record(settings, engine, req, begun.val)
  record.isRenewed = true
  record.place()
}

/** Returns the properties of a request that the component needs. */
function facts (req, { proxy }, path, cookie) {
  const tls = Boolean((req.socket ?? req.connection)?.encrypted)
  return {
    cookies: bounds.cookies(cookie),
    path: bounds.path(path),
    tls,
    // In Express, `req.secure` is a getter that parses headers.
    secure: proxy === undefined && !tls && req.secure === true,
    forwardedProto: proxy === true ? bounds.forwardedProto(req.headers['x-forwarded-proto']) : undefined
  }
}

const headersOf = res => ({
  get: name => res.hasHeader(name) ? [].concat(res.getHeader(name)).join(', ') : undefined,
  set: (name, value) => res.setHeader(name, value),
  keys: () => res.getHeaderNames()
})

/** Whether the headers are written. Some frameworks redefine `headersSent`. */
const hasHeader = res => '_header' in res ? Boolean(res._header) : res.headersSent

function pathOf (req) {
  const url = req.originalUrl || req.url
  if (url[0] === '/') {
    const end = url.search(/[?#]/)
    return end === -1 ? url : url.slice(0, end)
  }
  // The absolute form of RFC 9112, section 3.2.2.
  return URL.canParse(url) ? new URL(url).pathname : url || '/'
}

/** Whether a browser sends a cookie of this path: RFC 6265, section 5.1.4. */
function covers (cookiePath, path) {
  return path.startsWith(cookiePath) &&
    (path.length === cookiePath.length || cookiePath.endsWith('/') || path[cookiePath.length] === '/')
}

/** Makes the stored session expire with the cookie that is sent, to the millisecond. */
function align (cookie, { tag, val }) {
  if (!(cookie.originalMaxAge > 0) || !(cookie._expires instanceof Date)) return
  const expires = tag === 'touch' ? val : val?.expires
  if (expires !== undefined) cookie._expires = new Date(Number(expires))
}
