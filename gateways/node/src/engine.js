// Runs the component. Its only imports are the clock and the random source defined here.
import { instantiate } from '../generated/session.js'
import { OptionsError, camelCase, inCamelCase, toSettings } from './options.js'

const imports = {
  'wasi:clocks/wall-clock': {
    now () {
      const now = Date.now()
      const millis = now % 1000
      return { seconds: (now - millis) / 1000, nanoseconds: millis * 1e6 }
    }
  },
  'wasi:random/random': { getRandomU64 }
}

// Requested when it is needed: a process that is restored twice from one snapshot repeats nothing.
const number = new BigUint64Array(1)

function getRandomU64 () {
  return crypto.getRandomValues(number)[0]
}

/** Why a request fails. `message` is for the visitor, `reason` for the log. */
export class SessionError extends Error {
  constructor ({ kind, status, message, reason }) {
    super(message)
    // Express logs the stack.
    this.stack = this.stack.replace(message, () => `${message} (${reason})`)
    this.status = status
    this.code = `ERR_SESSION_${kind.toUpperCase().replace('-', '_')}`
    this.reason = reason
  }
}

/** The contract's engine. An instance that failed is replaced. */
export class Engine {
  /** The options in force by name, such as `maxSessionBytes` and `cookie.path`. */
  options
  #given
  #modules
  #descriptions
  #engine

  /** `modules` returns core modules by file name. */
  constructor (given, modules) {
    this.#given = given
    this.#modules = modules
    this.#open()
  }

  /** The secret that signs. */
  get secret () { return [this.#given.secret].flat()[0] }

  /** Returns another engine with some options changed. */
  with (changed) {
    return new Engine({ ...this.#given, ...changed }, this.#modules)
  }

  /** Returns the defaults of a preset, by name. */
  defaults (preset) {
    return byName(this.#descriptions.map(option => [option.name, option[preset]]))
  }

  begin (request) {
    try {
      return this.#engine.begin(request)
    } catch (error) { throw this.#failed(error) }
  }

  loaded (visit, stored) {
    try {
      return this.#engine.loaded(visit, stored)
    } catch (error) { throw this.#failed(error) }
  }

  finish (visit, stored, change) {
    try {
      return this.#engine.finish(visit, stored, change)
    } catch (error) { throw this.#failed(error) }
  }

  resume (visit, stored, change, at, obstacle) {
    try {
      return this.#engine.resume(visit, stored, change, at, obstacle)
    } catch (error) { throw this.#failed(error) }
  }

  #open () {
    this.#engine = instantiate(this.#modules, imports).engine
    this.#descriptions ??= this.#engine.options()
    try {
      const inForce = this.#engine.configure(toSettings(this.#given))
      this.options = byName(inForce.map(({ name, value }) => [name, value.val]))
    } catch (error) {
      if (!Array.isArray(error.payload)) throw error
      throw new OptionsError(error.payload.map(({ name, message }) =>
        ({ name: this.#spelled(name), message: this.#spelled(message) })))
    }
  }

  /** A failure has a payload. Any other error may leave the instance inconsistent. */
  #failed (error) {
    if (error.payload) return new SessionError({ ...error.payload, reason: this.#spelled(error.payload.reason) })
    this.#open()
    return error
  }

  #spelled (text) {
    return inCamelCase(text, new Set(this.#descriptions.map(({ name }) => name)))
  }
}

/** Returns options by name from their JSON texts; `null` is undefined. */
const byName = texts => Object.fromEntries(texts.map(([name, text]) => [camelCase(name), JSON.parse(text) ?? undefined]))
