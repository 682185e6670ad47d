// Sessions for handlers of the fetch kind: `Request` in, `Response` out. Needs WebAssembly,
// `crypto.getRandomValues` and the clock, and nothing of Node's.
import * as about from '../../generated/about.js'
import { Engine, OptionsError, defaults } from '../engine.js'
import { toOptions } from '../options.js'
import { MemoryStore } from './memory.js'
import { Session } from './session.js'

export { MemoryStore, OptionsError }

/** A store throws this where it can never keep such a text. */
export class Refused extends Error {}

/** How long a store may take for one operation, in milliseconds. */
const DEADLINE = 2000

/** Answers requests with `handler(request, session, ...rest)`, which gets a session for each. */
export function withSession (handler, options = {}) {
  const { modules = fetchModules, ...others } = options
  const sessions = Sessions.open(others, modules)
  return async (request, ...rest) => (await sessions).answer(request, session => handler(request, session, ...rest))
}

class Sessions {
  #engine
  #store
  #deadline
  #proxy
  #onError

  /** At once where `modules` is a function that has them, else as a promise. */
  static open (options, modules) {
    const loaded = modules()
    if (typeof loaded.then !== 'function') return new Sessions(options, name => loaded[name])
    const opened = loaded.then(modules => new Sessions(options, name => modules[name]))
    opened.catch(() => {}) // Every request will say so.
    return opened
  }

  constructor (given, modules) {
    const { preset = 'safe', store = new MemoryStore(), storeTimeout = DEADLINE, onError, ...others } = given
    const options = toOptions(others, defaults(preset, modules))
    this.#engine = new Engine(options, modules)
    this.#store = store
    this.#deadline = storeTimeout
    this.#proxy = options.proxy
    this.#onError = onError ?? (error => console.error(error))
  }

  async answer (request, handle) {
    const known = {}
    const begun = await this.#run(this.#begin(request), known)
    if (begun.tag === 'done') {
      return begun.val.failure ? this.#refusal(begun.val.failure) : handle(null)
    }
    const session = new Session(begun.val)
    const response = await handle(session)
    const change = session.change()
    const { val: outcome } = await this.#run(this.#engine.finish(begun.val.exchange, known, change), known, change)
    return outcome.failure ? this.#refusal(outcome.failure) : withOutcome(response, outcome)
  }

  #begin (request) {
    const { pathname, protocol } = new URL(request.url)
    const cookie = request.headers.get('cookie')
    const proto = this.#proxy === true ? request.headers.get('x-forwarded-proto') : null
    const isSecure = protocol === 'https:'
    return this.#engine.begin({
      cookies: cookie === null ? [] : [latin1(cookie)],
      path: pathname,
      tls: isSecure,
      secure: isSecure,
      forwardedProto: proto === null ? undefined : latin1(proto)
    })
  }

  /** The contract's loop: up to `ready`, or `done`. */
  async #run (step, known, change) {
    while (step.tag === 'store') {
      const { request, exchange, onDone } = step.val
      const reply = await this.#perform(request, exchange.id, known)
      if (reply.tag === 'done' && onDone) return { tag: 'done', val: onDone }
      step = this.#engine.resume(exchange, known, change, reply)
    }
    return step
  }

  async #perform ({ tag, val }, id, known) {
    const expected = isConditional => isConditional ? (known.current ?? known.loaded).data : undefined
    try {
      switch (tag) {
        case 'load': {
          const stored = await this.#timely(this.#store.load(id))
          if (!stored) return { tag: 'missing' }
          known.loaded = fromStore(stored)
          return { tag: 'found' }
        }
        case 'create':
          return { tag: await this.#timely(this.#store.create(id, content(val))) ? 'done' : 'taken' }
        case 'touch':
          return changed(await this.#timely(this.#store.touch(id, Number(val))), known)
        case 'replace':
          return changed(await this.#timely(
            this.#store.replace(id, content(val.content), expected(val.onlyKnown))), known)
        case 'delete':
          return changed(await this.#timely(this.#store.delete(id, expected(val))), known)
      }
    } catch (error) {
      this.#onError(error)
      const why = String(error?.message ?? error)
      return error instanceof Refused ? { tag: 'refused', val: why } : { tag: 'unavailable', val: why }
    }
  }

  /** A store that answers at once needs no timer. */
  #timely (answer) {
    if (typeof answer?.then !== 'function') return answer
    let timer
    const late = new Promise((resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`the store did not answer within ${this.#deadline} ms`)), this.#deadline)
    })
    return Promise.race([answer, late]).finally(() => clearTimeout(timer))
  }

  /** What a visitor gets whose session failed; `onError` is told why. */
  #refusal ({ tag, val }) {
    if (tag !== 'unavailable') this.#onError(new Error(`the session failed: ${tag} ${val ?? ''}`))
    const isTemporary = tag === 'unavailable' || tag === 'contention'
    const text = isTemporary
      ? 'Sessions are unavailable. Please try again.\n'
      : 'The session could not be saved.\n'
    const headers = { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' }
    return new Response(text, { status: isTemporary ? 503 : 500, headers })
  }
}

const content = ({ data, expires }) => ({ data, expires: Number(expires) })

const whole = millis => millis === undefined ? undefined : BigInt(Math.max(0, Math.trunc(millis)))

const fromStore = ({ data, expires, touched }) => ({ data, expires: whole(expires), touched: whole(touched) })

function changed (answer, known) {
  if (answer === true) return { tag: 'done' }
  if (!answer) return { tag: 'missing' }
  known.current = fromStore(answer)
  return { tag: 'conflict' }
}

function withOutcome (response, { setCookie, noStore }) {
  if (setCookie === undefined) return response
  try {
    response.headers.append('set-cookie', setCookie)
  } catch {
    // The headers of some cannot be changed: of redirects, and of what was fetched.
    response = new Response(response.body, response)
    response.headers.append('set-cookie', setCookie)
  }
  if (noStore && !response.headers.has('cache-control')) response.headers.set('cache-control', 'no-store')
  return response
}

const latin1 = text => Uint8Array.from(text, unit => unit.charCodeAt(0))

/** The core modules from beside this file, for runtimes that fetch file: addresses or are served by one. */
async function fetchModules () {
  const load = async name => {
    const response = await fetch(new URL(`../../generated/${name}`, import.meta.url))
    return [name, await WebAssembly.compile(await response.arrayBuffer())]
  }
  return Object.fromEntries(await Promise.all(about.modules.map(load)))
}
