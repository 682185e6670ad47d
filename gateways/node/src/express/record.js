// What the component knows of one session, and the loop that does what it says.
import { edits, settings as cookieSettings } from './cookie.js'
import { Session, inflate } from './session.js'
import { revive } from './store.js'

const NOTHING = { tag: 'nothing' }
const MISSING = { tag: 'missing' }
const DONE = { tag: 'done' }
const CONFLICT = { tag: 'conflict' }

export class Record {
  /** Why the store failed, in its own words. */
  storeError = undefined
  /** Why the session cannot be answered for: to throw, as soon as somebody can catch it. */
  failure = undefined
  /** The session was ended by `req.session.destroy()`. */
  isDestroyed = false
  /** What `req.session.save()` stored: the data, and the whole as others find it. */
  saved = undefined
  #req
  /** The data, and the cookie's settings, as they were at the beginning. */
  #data
  #cookie

  /**
   * Puts the session that the component is `ready` with into the request. `known` is what the
   * store said of it, and found.
   */
  constructor (settings, engine, req, { exchange, data, cookie }, known, found) {
    this.settings = settings
    this.engine = engine
    this.exchange = exchange
    this.known = known
    this.isLoaded = exchange.origin === 'loaded'
    /** It began in the midst of a request, in place of another. */
    this.isRenewed = false
    this.#req = req
    this.#data = data
    if (!this.isLoaded && settings.genid) this.#identify()
    // To assign a property of Express's requests takes microseconds.
    if (req.sessionID !== exchange.id) req.sessionID = exchange.id
    if (this.isLoaded) {
      req.session = inflate(req, found, this)
    } else {
      const session = new Session(req, undefined, this)
      session.cookie = settings.cookie(req, cookie)
      req.session = session
    }
    this.#cookie = this.isLoaded || !settings.isDynamic
      ? cookieSettings(req.session.cookie)
      : { ...cookie, originalMaxAge: cookie.originalMaxAge ?? null }
  }

  /** By the application, under an identifier of its own making. */
  #identify () {
    try {
      const id = this.settings.genid(this.#req)
      if (typeof id !== 'string' || id === '' || !id.isWellFormed()) throw new TypeError('genid must return a text')
      this.exchange.id = id
    } catch (error) { this.failure = error }
  }

  /** What the application did. */
  change (session, data) {
    return {
      action: this.isRenewed ? 'regenerate' : 'keep',
      data: data === this.#data ? NOTHING : { tag: 'whole', val: data },
      cookie: edits(this.#cookie, session.cookie)
    }
  }

  /** `req.session.save()`: stores what did not change, too, as express-session does. */
  save (session, callback) {
    const { settings, exchange } = this
    if (exchange.origin === 'detached') return setImmediate(callback)
    const saved = this.saved = { data: dataOf(session), document: undefined }
    if (settings.merges && this.isLoaded) {
      const known = { ...this.known }
      const change = this.change(session, saved.data)
      const step = this.engine.finish(exchange, known, change)
      if (step.tag === 'store' && step.val.request.tag === 'replace') {
        return this.run(step, known, change, (error, outcome) => {
          error ??= this.errorOf(outcome)
          if (!error) saved.document = known.current ? step.val.request.val.content.data : JSON.stringify(session)
          callback(error)
        })
      }
    }
    settings.store.set(session.id, session, callback)
  }

  /** The contract's loop. Calls back with the component's outcome. */
  run (step, known, change, callback) {
    if (step.tag === 'done') return callback(undefined, step.val)
    const { request, exchange, onDone } = step.val
    this.#perform(request, exchange.id, known, (error, reply) => {
      if (error) reply = this.unavailable(error)
      if (reply === DONE && onDone) return callback(undefined, onDone)
      let next
      try {
        next = this.engine.resume(exchange, known, change, reply)
      } catch (error) { return callback(error) }
      this.run(next, known, change, callback)
    })
  }

  /** Do what the component asks for with an express-session store. */
  #perform ({ tag, val }, id, known, callback) {
    const { store, hasTouch } = this.settings
    const { session } = this.#req
    const done = error => callback(error, DONE)
    const set = () => store.set(id, known.current ? revive(val.content.data) : session, done)
    switch (tag) {
      case 'create': return set()
      case 'touch': return hasTouch ? store.touch(id, session, done) : done()
      case 'delete': return store.destroy(id, done)
      case 'replace': {
        if (!val.onlyKnown) return set()
        // Such stores cannot compare and write at once: a moment remains between the two.
        return store.get(id, (error, found) => {
          if (error && error.code !== 'ENOENT') return callback(error)
          if (error || !found) return callback(undefined, MISSING)
          const data = JSON.stringify(found)
          if (data === (known.current ?? known.loaded).data) return set()
          known.current = { data }
          callback(undefined, CONFLICT)
        })
      }
    }
  }

  /** A request to the store that the component has not made: it does not know of `save()`. */
  request (request) {
    return { tag: 'store', val: { request, exchange: this.exchange, onDone: {} } }
  }

  unavailable (error) {
    this.storeError = error
    return { tag: 'unavailable', val: String(error.message ?? error) }
  }

  errorOf (outcome) {
    return outcome.failure && failed(outcome.failure, this.storeError)
  }
}

/** A failure as an error; of a store's, its own. */
export function failed ({ tag, val }, storeError) {
  if (storeError && tag === 'unavailable') return storeError
  const [status, message] = {
    unavailable: [503, `sessions are unavailable: ${val}`],
    'invalid-change': [500, `the change to the session is not valid: ${val}`],
    'too-large': [500, `the session of ${val} bytes is above maxSessionBytes`],
    contention: [503, 'too many requests changed one session at once']
  }[tag]
  const code = `ERR_SESSION_${tag.toUpperCase().replace('-', '_')}`
  return Object.assign(new Error(message), { status, code })
}

/** The session without its cookie as JSON text. */
export function dataOf (session) {
  if (typeof session.toJSON === 'function') {
    return JSON.stringify(session, function (key, value) {
      return this === session && key === 'cookie' ? undefined : value
    })
  }
  const { cookie, ...data } = session
  return JSON.stringify(data)
}
