// The component's state of one session, and the loop that performs its store requests.
import * as bounds from '../bounds.js'
import { isConditional, pause } from '../turns.js'
import { edits, settings as cookieSettings } from './cookie.js'
import { Session, inflate } from './session.js'
import { revive } from './store.js'

export const NOTHING = { tag: 'nothing' }
const MISSING = { tag: 'missing' }
const DONE = { tag: 'done' }
const CONFLICT = { tag: 'conflict' }
const CONTENTION = { failure: { tag: 'contention' } }

export class Record {
  /** The store's own error, if it failed. */
  storeError = undefined
  /** Why the session cannot be used; thrown as soon as it can be caught. */
  failure = undefined
  /** The session was ended by `req.session.destroy()`. */
  isDestroyed = false
  /** What `req.session.save()` stored: the data, and the whole document as others read it. */
  saved = undefined
  #req
  /** The data and the cookie settings at the beginning. */
  #data
  #cookie

  /** For a session in a `ready` step. `known`: what the store returned for it. */
  constructor (settings, engine, req, { exchange, data, cookie }, known) {
    this.settings = settings
    this.engine = engine
    this.exchange = exchange
    this.known = known
    this.isLoaded = exchange.origin === 'loaded'
    /** The session was created during the request, in place of another. */
    this.isRenewed = false
    this.#req = req
    this.#data = data
    this.#cookie = cookie
  }

  /** Assigns the session to the request. `found` is the store's result. */
  place (found) {
    const { settings, exchange } = this
    const req = this.#req
    if (!this.isLoaded && settings.genid) this.#identify()
    // Assigning a property of Express's requests takes microseconds.
    if (req.sessionID !== exchange.id) req.sessionID = exchange.id
    const session = this.isLoaded ? inflate(req, found, this) : new Session(req, undefined, this)
    if (this.isLoaded) {
      this.#cookie = cookieSettings(session.cookie)
    } else {
      session.cookie = settings.cookie(req, this.#cookie)
      // Settings that the component's options cannot express are assigned.
      if (!settings.isDynamic) this.#cookie = { ...this.#cookie, originalMaxAge: session.cookie.originalMaxAge ?? undefined }
    }
    req.session = session
    return this
  }

  /** Takes the identifier from the application's `genid`. */
  #identify () {
    try {
      const id = this.settings.genid(this.#req)
      if (typeof id !== 'string' || id === '' || !id.isWellFormed()) throw new TypeError('genid must return a string')
      this.exchange.id = id
    } catch (error) { this.failure = error }
  }

  /** Returns the application's change. */
  change (session, data) {
    return {
      action: this.isRenewed ? 'regenerate' : 'keep',
      data: data === this.#data ? NOTHING : { tag: 'whole', val: data },
      cookie: edits(this.#cookie, session.cookie)
    }
  }

  /** Implements `req.session.save()`: stores unchanged sessions too, as express-session does. */
  save (session, callback) {
    const { settings, exchange } = this
    if (exchange.origin === 'detached') return setImmediate(callback)
    const saved = this.saved = { data: dataOf(session), document: undefined }
    if (settings.merges && this.isLoaded) {
      const known = { ...this.known }
      const change = this.change(session, saved.data)
      const step = this.finish(known, change)
      if (step.tag === 'done' && step.val.failure) return setImmediate(callback, this.errorOf(step.val))
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

  /** Passes a change to the component. */
  finish (known, change) {
    const excess = bounds.excess(change, this.settings.maxSessionBytes)
    if (excess !== undefined && this.exchange.origin !== 'detached') {
      return { tag: 'done', val: { failure: { tag: 'too-large', val: excess } } }
    }
    return this.#sender(change).finish(this.exchange, known, change)
  }

  /**
   * express-session sends the cookie of a changed session that has an `expires`, and counts `false`
   * as one. In the contract, it is none.
   */
  #sender ({ data }) {
    const expires = this.#req.session?.cookie?.expires
    const isSent = this.isLoaded && this.settings.isExpress && data !== NOTHING && (expires === false || expires === '')
    return isSent ? this.settings.sending(this.engine) : this.engine
  }

  /** The contract's loop. Calls back with the component's outcome. */
  run (step, known, change, callback) {
    let turn
    let conflicts = 0
    // Before calling back, because the callback may request the next turn.
    const end = (error, outcome) => {
      turn?.end()
      callback(error, outcome)
    }
    const resume = (exchange, reply) => {
      let next
      try {
        next = this.engine.resume(exchange, known, change, reply)
      } catch (error) { return end(error) }
      take(next)
    }
    const perform = ({ request, exchange, onDone }) => this.#perform(request, exchange.id, known, (error, reply, left) => {
      if (error) reply = this.unavailable(error)
      if (turn) turn.left = error ? undefined : left
      if (reply === DONE && onDone) return end(undefined, onDone)
      if (reply !== CONFLICT || ++conflicts < 2) return resume(exchange, reply)
      setTimeout(resume, pause(conflicts), exchange, reply)
    })
    const take = ({ tag, val }) => {
      if (tag === 'done') return end(undefined, val)
      if (turn || !isConditional(val.request)) return perform(val)
      this.settings.turns.enter(val.exchange.id, its => {
        turn = its
        if (!turn) return end(undefined, CONTENTION)
        if (!turn.left || turn.left.data === (known.current ?? known.loaded).data) return perform(val)
        // Another request has changed the session: the store's reply is already known.
        known.current = turn.left
        resume(val.exchange, CONFLICT)
      })
    }
    take(step)
  }

  /** Performs a store request of the component on an express-session store. */
  #perform ({ tag, val }, id, known, callback) {
    const { store, hasTouch, maxSessionBytes } = this.settings
    const { session } = this.#req
    const done = error => callback(error, DONE)
    const set = done => store.set(id, known.current ? revive(val.content.data) : session, done)
    switch (tag) {
      case 'create': return set(done)
      case 'touch': return hasTouch ? store.touch(id, session, done) : done()
      case 'delete': return store.destroy(id, done)
      case 'replace': {
        if (!val.onlyKnown) return set(done)
        // Such stores cannot compare and write atomically: between the two, other processes can
        // write.
        return store.get(id, (error, found) => {
          if (error && error.code !== 'ENOENT') return callback(error)
          if (error || !found) return callback(undefined, MISSING)
          const data = JSON.stringify(found)
          if (data === (known.current ?? known.loaded).data) {
            const left = { data: known.current ? val.content.data : JSON.stringify(session) }
            return set(error => callback(error, DONE, left))
          }
          known.current = { data: bounds.stored(data, maxSessionBytes) }
          callback(undefined, CONFLICT)
        })
      }
    }
  }

  /**
   * Creates a store request that does not come from the component, which does not know about
   * `save()`.
   */
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

/** Converts a failure to an error; returns the store's own error if it failed. */
export function failed ({ tag, val }, storeError) {
  if (storeError && tag === 'unavailable') return storeError
  const [status, message] = {
    unavailable: [503, `sessions are unavailable: ${val}`],
    'invalid-change': [500, `the change to the session is not valid: ${val}`],
    'too-large': [500, `the session of ${val} bytes exceeds maxSessionBytes`],
    contention: [503, 'too many requests changed the session at once, or its identifier has changed']
  }[tag]
  const code = `ERR_SESSION_${tag.toUpperCase().replace('-', '_')}`
  return Object.assign(new Error(message), { status, code })
}

/** Returns the session without its cookie as JSON text. */
export function dataOf (session) {
  if (typeof session.toJSON === 'function') {
    return JSON.stringify(session, function (key, value) {
      return this === session && key === 'cookie' ? undefined : value
    })
  }
  const { cookie, ...data } = session
  return JSON.stringify(data)
}
