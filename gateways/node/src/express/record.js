// The component's view of one session, and the loop that stores it.
import * as bounds from '../bounds.js'
import { BUSY, pause } from '../turns.js'
import { edits, settings as cookieSettings } from './cookie.js'
import { Session, inflate } from './session.js'
import { revive } from './store.js'

export const NOTHING = { tag: 'nothing' }
const MISSING = { tag: 'missing' }

export class Record {
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
  /** The store's own error, if it failed. */
  #storeError

  /** For a session that is `ready`. `stored`: what the store returned for it. */
  constructor (settings, engine, req, { visit, origin, text }, stored) {
    this.settings = settings
    this.engine = engine
    this.visit = visit
    this.isLoaded = origin === 'loaded'
    this.isDetached = origin === 'detached'
    /** The session was created during the request, in place of another. */
    this.isRenewed = false
    this.#req = req
    if (this.isLoaded) {
      this.stored = stored
    } else {
      this.#data = '{}'
      this.#cookie = cookieOf(text)
    }
  }

  /** Assigns the session to the request. `found` is the store's result. */
  place (found) {
    const { settings, visit } = this
    const req = this.#req
    if (!this.isLoaded && settings.genid) this.#identify()
    // Assigning a property of Express's requests takes microseconds.
    if (req.sessionID !== visit.id) req.sessionID = visit.id
    let session
    if (this.isLoaded) {
      // Before `inflate`, which replaces the cookie.
      this.#data = dataIn(this.stored.data, found)
      session = inflate(req, found, this)
      this.#cookie = cookieSettings(session.cookie)
    } else {
      session = new Session(req, undefined, this)
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
      this.visit.id = id
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
    const { settings, stored } = this
    if (this.isDetached) return setImmediate(callback)
    const saved = this.saved = { data: dataOf(session), document: undefined }
    if (settings.merges && this.isLoaded) {
      const change = this.change(session, saved.data)
      let plan
      try {
        plan = this.finish(stored, change)
      } catch (error) { return setImmediate(callback, error) }
      if (plan.writes[0]?.operation.tag === 'replace') {
        return this.run(plan, stored, change, (error, left) => {
          if (!error) saved.document = left?.data ?? JSON.stringify(session)
          callback(error)
        })
      }
    }
    settings.store.set(session.id, session, callback)
  }

  /** Passes a change to the component. */
  finish (stored, change) {
    if (!this.isDetached) bounds.check(change, this.settings.maxSessionBytes)
    return this.engine.finish(this.visit, stored, change)
  }

  /**
   * The contract's loop from a plan to its outcome. Calls back with an error, or with what the
   * session's last replacement left in the store.
   */
  run (plan, stored, change, callback) {
    let seen = stored
    let at = 0
    let turn
    let conflicts = 0
    let left
    // Before calling back, because the callback may request the next turn.
    const end = error => {
      turn?.end()
      callback(error, left)
    }
    const resume = obstacle => {
      if (obstacle.tag === 'conflict') seen = obstacle.val
      try {
        plan = this.engine.resume(plan.visit, stored, change, at, obstacle)
      } catch (error) { return end(reasonOf(error, this.#storeError)) }
      at = 0
      next()
    }
    const perform = write => this.#perform(write, seen, seen !== stored, (obstacle, now) => {
      left = now
      if (turn && write.ifUnchanged) turn.left = left
      if (!obstacle) {
        at++
        next()
      } else if (obstacle.tag !== 'conflict' || !write.ifUnchanged || ++conflicts < 2) resume(obstacle)
      else setTimeout(resume, pause(conflicts), obstacle)
    })
    const next = () => {
      const write = plan.writes[at]
      if (!write) return end()
      if (!write.ifUnchanged || turn?.isOf(write.id)) return perform(write)
      turn?.end()
      this.settings.turns.enter(write.id, its => {
        turn = its
        if (!turn) return resume({ tag: 'unavailable', val: BUSY })
        if (!turn.left || turn.left.data === seen.data) return perform(write)
        // Another request has changed the session: what the store has is already known.
        resume({ tag: 'conflict', val: turn.left })
      })
    }
    next()
  }

  /** Performs an operation that the component did not ask for: it does not know about `save()`. */
  perform (tag, id, callback) {
    this.#perform({ id, operation: { tag } }, undefined, false, obstacle => callback(obstacle && this.#storeError))
  }

  /**
   * Performs a write on an express-session store. Calls back with the obstacle that it met, and with
   * what a conditional replacement leaves there. The merged session is not the application's.
   */
  #perform ({ id, operation: { tag, val }, ifUnchanged }, seen, isMerged, callback) {
    const { store, hasTouch, maxSessionBytes } = this.settings
    const { session } = this.#req
    const done = error => callback(error ? this.#unavailable(error) : undefined)
    const set = done => store.set(id, isMerged ? revive(val.data) : session, done)
    const look = callback => store.get(id, (error, found) => {
      if (error && error.code !== 'ENOENT') return callback(this.#unavailable(error))
      if (error || !found) return callback(MISSING)
      callback({ tag: 'conflict', val: { data: bounds.stored(JSON.stringify(found), maxSessionBytes) } })
    })
    switch (tag) {
      case 'create': return set(done)
      case 'touch': return hasTouch ? store.touch(id, session, done) : done()
      case 'delete': return store.destroy(id, done)
      case 'load': return look(callback)
      case 'replace': {
        if (!ifUnchanged) return set(done)
        // Such stores cannot compare and write atomically: between the two, other processes can
        // write.
        return look(obstacle => {
          if (obstacle.val?.data !== seen.data) return callback(obstacle)
          const left = { data: isMerged ? val.data : JSON.stringify(session) }
          set(error => error ? done(error) : callback(undefined, left))
        })
      }
    }
  }

  #unavailable (error) {
    this.#storeError = error
    return { tag: 'unavailable', val: messageOf(error) }
  }
}

export const messageOf = error => String(error.message ?? error)

/** Returns the store's own error, if a request failed because of it. */
export const reasonOf = (error, storeError) =>
  storeError && error.code === 'ERR_SESSION_UNAVAILABLE' ? storeError : error

let last = {}

/** Returns the settings of the cookie in a new session's text. Most such texts are the same. */
export function cookieOf (text) {
  if (text !== last.text) last = { text, cookie: cookieSettings(JSON.parse(text).cookie) }
  return last.cookie
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

/** The same for a session whose text is known. Nearly always, the data follows the cookie. */
function dataIn (text, found) {
  const beginning = `{"cookie":${JSON.stringify(found.cookie)}`
  if (!text.startsWith(beginning)) return dataOf(found)
  return text[beginning.length] === ',' ? `{${text.slice(beginning.length + 1)}` : '{}'
}
