// Sessions for fetch handlers: `Request` in, `Response` out. Needs WebAssembly,
// `crypto.getRandomValues` and the clock, and nothing specific to Node.
import * as bounds from '../bounds.js'
import { keepPrivate, varyByCookie } from '../caching.js'
import { Engine, SessionError } from '../engine.js'
import { OptionsError } from '../options.js'
import { BUSY, pause } from '../turns.js'
import { MemoryStore } from './memory.js'
import { Refused } from './refused.js'
import { Session } from './session.js'
import { Upgrade } from './upgrade.js'

export { MemoryStore, OptionsError, Refused }

/** How long a store may take for one operation, in milliseconds. */
const DEADLINE = 2000

const LOAD = { tag: 'load' }
const MISSING = { tag: 'missing' }
const TAKEN = { tag: 'taken' }

/** `modules` returns the core modules. Without `turns`, requests do not wait for each other. */
export function withTurns (handler, options, modules, turns) {
  const sessions = Sessions.open(options, modules, turns)
  return async (request, server, ...rest) => {
    const upgrade = Upgrade.isPossible(request, server) ? new Upgrade(server) : undefined
    const handle = session => handler(request, session, upgrade?.server ?? server, ...rest)
    return (await sessions).answer(request, handle, upgrade)
  }
}

class Sessions {
  #engine
  #store
  #deadline
  #proxy
  #maxSessionBytes
  #turns
  #onError
  #isSafe

  /** Synchronous if `modules` returns the modules, otherwise a promise. */
  static open (options, modules, turns) {
    const loaded = modules()
    if (typeof loaded.then !== 'function') return new Sessions(options, name => loaded[name], turns)
    const opened = loaded.then(modules => new Sessions(options, name => modules[name], turns))
    opened.catch(() => {}) // every request reports it
    return opened
  }

  constructor (given, modules, turns) {
    const { store, storeTimeout = DEADLINE, onError, ...others } = given
    this.#engine = new Engine(others, modules)
    const { options } = this.#engine
    if (!(storeTimeout > 0 && storeTimeout < 2 ** 31)) throw new TypeError('storeTimeout is not a number of milliseconds below 2^31')
    if (onError !== undefined && typeof onError !== 'function') throw new TypeError('onError is not a function')
    this.#store = store || new MemoryStore()
    const missing = ['load', 'create', 'replace', 'touch', 'delete'].filter(it => typeof this.#store[it] !== 'function')
    if (missing.length > 0) {
      const hint = typeof this.#store.then === 'function' ? ': it is a promise, await it' : ''
      throw new TypeError(`the store has no ${missing.join(', ')}${hint}`)
    }
    this.#deadline = storeTimeout
    this.#proxy = options.proxy
    this.#maxSessionBytes = options.maxSessionBytes
    this.#turns = turns
    this.#onError = onError ?? (error => console.error(error))
    this.#isSafe = options.preset === 'safe'
  }

  async answer (request, handle, upgrade) {
    try {
      const begun = await this.#begin(request)
      if (!begun) {
        const response = await handle(null)
        return upgrade?.isAsked ? upgrade.answer(request) : response
      }
      const { ready, stored } = begun
      const session = new Session(ready, stored)
      const response = await handle(session)
      const change = changeOf(session)
      if (ready.origin !== 'detached') bounds.check(change, this.#maxSessionBytes)
      const outcome = await this.#finish(ready.visit, stored, change)
      if (upgrade?.isAsked) return upgrade.answer(request, outcome.setCookie)
      return this.#withOutcome(response, outcome, this.#isSafe && Session.isRead(session))
    } catch (error) {
      if (error instanceof SessionError) return this.#refusal(error)
      throw error
    }
  }

  #withOutcome (response, { setCookie, noStore }, isRead) {
    if (setCookie === undefined && !isRead) return response
    const tell = ({ headers }) => {
      if (setCookie !== undefined) headers.append('Set-Cookie', setCookie)
      if (noStore) keepPrivate(headers)
      else if (isRead) varyByCookie(headers)
    }
    const itself = response => response
    const copied = response => new Response(response.body, response)
    // A response without a body may be shared with other requests, so it is copied. Some responses
    // have immutable headers: redirects, and responses of `fetch`. An upgrade, or a missing
    // response, cannot be copied.
    for (const made of response?.body ? [itself, copied] : [copied, itself]) {
      try {
        const told = made(response)
        tell(told)
        return told
      } catch {}
    }
    if (setCookie !== undefined) {
      this.#onError(new Error(`the session's cookie cannot be added to this response: ${response?.status ?? 'none'}`))
    }
    return response
  }

  /** The contract's loop up to the session, which is returned with what is stored of it. */
  async #begin (request) {
    let begun = this.#engine.begin(this.#facts(request))
    let stored
    while (begun.tag === 'load') {
      const visit = begun.val
      const { tag, val } = await this.#perform({ id: visit.id, operation: LOAD })
      stored = tag === 'conflict' ? val : undefined
      begun = this.#engine.loaded(visit, { tag: stored || tag === 'missing' ? 'ok' : 'err', val })
    }
    const ready = begun.val
    // What is damaged may be large.
    return ready && { ready, stored: ready.origin === 'loaded' ? stored : undefined }
  }

  #facts (request) {
    const { pathname, protocol } = new URL(request.url)
    const isSecure = protocol === 'https:'
    return {
      cookies: bounds.cookies(request.headers.get('cookie')),
      path: bounds.path(pathname),
      tls: isSecure,
      secure: isSecure,
      forwardedProto: this.#proxy === true
        ? bounds.forwardedProto(request.headers.get('x-forwarded-proto'))
        : undefined
    }
  }

  /** The contract's loop up to its outcome. */
  async #finish (visit, stored, change) {
    let turn
    let conflicts = 0
    let seen = stored
    let plan = this.#engine.finish(visit, stored, change)
    try {
      for (let at = 0; at < plan.writes.length; at++) {
        const write = plan.writes[at]
        let obstacle
        if (write.ifUnchanged && this.#turns && !turn?.isOf(write.id)) {
          turn?.end()
          turn = await new Promise(resolve => this.#turns.enter(write.id, resolve))
          if (!turn) obstacle = this.#unavailable(new Error(BUSY))
          // Another request has changed the session: what the store has is already known.
          else if (turn.left && turn.left.data !== seen.data) obstacle = { tag: 'conflict', val: turn.left }
        }
        if (!obstacle) {
          obstacle = await this.#perform(write, seen)
          if (turn && write.ifUnchanged) turn.left = left(write, obstacle)
          if (!obstacle) continue
          if (write.ifUnchanged && obstacle.tag === 'conflict') obstacle = await this.#makeWay(++conflicts, write.id, obstacle)
        }
        if (obstacle.tag === 'conflict') seen = obstacle.val
        plan = this.#engine.resume(plan.visit, stored, change, at, obstacle)
        at = -1 // The new plan is performed from its start.
      }
      return plan.outcome
    } finally { turn?.end() }
  }

  /** After a repeated conflict, pauses and then loads the session again. */
  async #makeWay (conflicts, id, conflict) {
    if (conflicts < 2) return conflict
    await new Promise(resolve => setTimeout(resolve, pause(conflicts)))
    return this.#perform({ id, operation: LOAD })
  }

  /** Returns the obstacle that a write met; nothing if it is done. */
  async #perform ({ id, operation: { tag, val }, ifUnchanged }, seen) {
    const expected = ifUnchanged ? seen.data : undefined
    try {
      switch (tag) {
        case 'load': return this.#conflict(await this.#timely(this.#store.load(id)))
        case 'create': return await this.#timely(this.#store.create(id, content(val))) ? undefined : TAKEN
        case 'touch': return this.#obstacle(await this.#timely(this.#store.touch(id, Number(val))))
        case 'replace': return this.#obstacle(await this.#timely(this.#store.replace(id, content(val), expected)))
        case 'delete': return this.#obstacle(await this.#timely(this.#store.delete(id, expected)))
      }
    } catch (error) { return this.#unavailable(error) }
  }

  /** `answer`: true, false, or what is stored instead. */
  #obstacle (answer) {
    return answer === true ? undefined : this.#conflict(answer)
  }

  #conflict (stored) {
    return stored ? { tag: 'conflict', val: this.#fromStore(stored) } : MISSING
  }

  #unavailable (error) {
    this.#onError(error)
    return { tag: error instanceof Refused ? 'refused' : 'unavailable', val: String(error?.message ?? error) }
  }

  #fromStore ({ data, expires, touched }) {
    if (typeof data !== 'string') throw new TypeError('the store returned a session whose data is not a string')
    return { data: bounds.stored(data, this.#maxSessionBytes), expires: whole(expires), touched: whole(touched) }
  }

  /** A store that replies synchronously needs no timer. */
  #timely (answer) {
    if (typeof answer?.then !== 'function') return answer
    let timer
    const late = new Promise((resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`the store did not respond within ${this.#deadline} ms`)), this.#deadline)
    })
    return Promise.race([answer, late]).finally(() => clearTimeout(timer))
  }

  /** Returns the visitor's response for a failed session; reports the reason to `onError`. */
  #refusal ({ code, status, message, reason }) {
    // What made the store unavailable was already reported.
    if (code !== 'ERR_SESSION_UNAVAILABLE') this.#onError(new Error(`the session failed: ${reason}`))
    const headers = { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' }
    return new Response(`${message}\n`, { status, headers })
  }
}

/** What JSON cannot hold (a BigInt, a cycle, too deep an object), no session can. */
function changeOf (session) {
  try { return session.change() } catch (error) { throw bounds.notSaved('invalid-change', String(error?.message ?? error)) }
}

const content = ({ data, expires }) => ({ data, expires: Number(expires) })

/** None is null in SQL. */
const whole = millis => millis === undefined || millis === null ? undefined : BigInt(Math.max(0, Math.trunc(millis)))

/** What a write leaves in the store, if known. */
const left = ({ operation: { tag, val } }, obstacle) => tag === 'replace' && !obstacle ? val : undefined
