// Sessions for fetch handlers: `Request` in, `Response` out. Needs WebAssembly,
// `crypto.getRandomValues` and the clock, and nothing specific to Node.
import * as bounds from '../bounds.js'
import { keepPrivate, varyByCookie } from '../caching.js'
import { Engine, OptionsError, defaults } from '../engine.js'
import { toOptions } from '../options.js'
import { isConditional, pause } from '../turns.js'
import { MemoryStore } from './memory.js'
import { Session } from './session.js'
import { Upgrade } from './upgrade.js'

export { MemoryStore, OptionsError }

/** Thrown by a store that can never store a text. */
export class Refused extends Error {}

/** How long a store may take for one operation, in milliseconds. */
const DEADLINE = 2000

const CONFLICT = { tag: 'conflict' }
const CONTENTION = { failure: { tag: 'contention' } }

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
    const { preset = 'safe', store, storeTimeout = DEADLINE, onError, ...others } = given
    const options = toOptions(others, defaults(preset, modules))
    this.#engine = new Engine(options, modules)
    this.#store = store || new MemoryStore()
    this.#deadline = storeTimeout
    this.#proxy = options.proxy
    this.#maxSessionBytes = options.maxSessionBytes
    this.#turns = turns
    this.#onError = onError ?? (error => console.error(error))
    this.#isSafe = preset === 'safe'
  }

  async answer (request, handle, upgrade) {
    const known = {}
    const begun = await this.#begin(request, known)
    if (begun.tag === 'done') {
      if (begun.val.failure) return this.#refusal(begun.val.failure)
      const response = await handle(null)
      return upgrade?.isAsked ? upgrade.answer(request) : response
    }
    const { exchange } = begun.val
    const session = new Session(begun.val)
    const response = await handle(session)
    const change = session.change()
    const excess = bounds.excess(change, this.#maxSessionBytes)
    if (excess !== undefined && exchange.origin !== 'detached') return this.#refusal({ tag: 'too-large', val: excess })
    const outcome = await this.#finish(exchange, known, change)
    if (outcome.failure) return this.#refusal(outcome.failure)
    if (upgrade?.isAsked) return upgrade.answer(request, outcome.setCookie)
    return this.#withOutcome(response, outcome, this.#isSafe && Session.isRead(session))
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

  /** The contract's loop up to `ready` or `done`. */
  async #begin (request, known) {
    let step = this.#engine.begin(this.#facts(request))
    while (step.tag === 'store') {
      const { request, exchange } = step.val
      const reply = await this.#perform(request, exchange.id, known)
      step = this.#engine.resume(exchange, known, undefined, reply)
    }
    return step
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
  async #finish (exchange, known, change) {
    let turn
    let conflicts = 0
    let step = this.#engine.finish(exchange, known, change)
    try {
      while (step.tag === 'store') {
        const { request, exchange, onDone } = step.val
        const dependent = isConditional(request)
        if (dependent && this.#turns && !turn) {
          turn = await new Promise(resolve => this.#turns.enter(exchange.id, resolve))
          if (!turn) return CONTENTION
          if (turn.left && turn.left.data !== last(known)) {
            // Another request has changed the session: the store's reply is already known.
            known.current = turn.left
            step = this.#engine.resume(exchange, known, change, CONFLICT)
            continue
          }
        }
        let reply = await this.#perform(request, exchange.id, known)
        if (dependent && turn) turn.left = left(request, reply)
        if (reply.tag === 'conflict') reply = await this.#makeWay(++conflicts, exchange.id, known)
        if (reply.tag === 'done' && onDone) return onDone
        step = this.#engine.resume(exchange, known, change, reply)
      }
      return step.val
    } finally { turn?.end() }
  }

  /** After a repeated conflict, pauses and then loads the session again. */
  async #makeWay (conflicts, id, known) {
    const millis = pause(conflicts)
    if (conflicts < 2) return CONFLICT
    await new Promise(resolve => setTimeout(resolve, millis))
    const found = {}
    const reply = await this.#perform({ tag: 'load' }, id, found)
    if (reply.tag !== 'found') return reply
    known.current = found.loaded
    return CONFLICT
  }

  async #perform ({ tag, val }, id, known) {
    const expected = isConditional => isConditional ? last(known) : undefined
    const changed = answer => {
      if (answer === true) return { tag: 'done' }
      if (!answer) return { tag: 'missing' }
      known.current = this.#fromStore(answer)
      return CONFLICT
    }
    try {
      switch (tag) {
        case 'load': {
          const stored = await this.#timely(this.#store.load(id))
          if (!stored) return { tag: 'missing' }
          known.loaded = this.#fromStore(stored)
          return { tag: 'found' }
        }
        case 'create':
          return { tag: await this.#timely(this.#store.create(id, content(val))) ? 'done' : 'taken' }
        case 'touch':
          return changed(await this.#timely(this.#store.touch(id, Number(val))))
        case 'replace':
          return changed(await this.#timely(
            this.#store.replace(id, content(val.content), expected(val.onlyKnown))))
        case 'delete':
          return changed(await this.#timely(this.#store.delete(id, expected(val))))
      }
    } catch (error) {
      this.#onError(error)
      const why = String(error?.message ?? error)
      return error instanceof Refused ? { tag: 'refused', val: why } : { tag: 'unavailable', val: why }
    }
  }

  #fromStore ({ data, expires, touched }) {
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
  #refusal ({ tag, val }) {
    if (tag === 'contention') {
      this.#onError(new Error('a change was not stored: too many requests changed the session at once, or its identifier has changed'))
    } else if (tag !== 'unavailable') {
      this.#onError(new Error(`the session failed: ${tag} ${val ?? ''}`))
    }
    const [status, text] = {
      unavailable: [503, 'Sessions are unavailable. Please try again.\n'],
      contention: [503, 'The session has changed meanwhile. Please reload the page.\n']
    }[tag] ?? [500, 'The session could not be saved.\n']
    const headers = { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' }
    return new Response(text, { status, headers })
  }
}

const content = ({ data, expires }) => ({ data, expires: Number(expires) })

const whole = millis => millis === undefined ? undefined : BigInt(Math.max(0, Math.trunc(millis)))

/** The stored text, if known. */
const last = known => (known.current ?? known.loaded)?.data

/** What a request leaves in the store, if known. */
const left = ({ tag, val }, reply) => tag === 'replace' && reply.tag === 'done' ? val.content : undefined
