// Runs the component. Its only imports are the clock and the random source defined here.
import { instantiate } from '../generated/session.js'

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

// Requesting many numbers at once is cheaper. Each is used once and erased.
const pool = new BigUint64Array(96)
let left = 0

function getRandomU64 () {
  if (left === 0) {
    crypto.getRandomValues(pool)
    left = pool.length
  }
  const random = pool[--left]
  pool[left] = 0n
  return random
}

/** The options are not valid: `problems` lists everything that is wrong. */
export class OptionsError extends TypeError {
  constructor (problems) {
    super(['the session options cannot be used:',
      ...problems.map(({ name, message }) => `  ${name}: ${message}`)].join('\n'))
    this.name = 'OptionsError'
    this.problems = problems
  }
}

/** The contract's engine. An instance that failed is replaced. */
export class Engine {
  #open
  #engine
  /** Returns another engine with some options changed. */
  with

  /** `modules` returns core modules by file name. */
  constructor (options, modules) {
    this.with = changed => new Engine({ ...options, ...changed }, modules)
    this.#open = () => instantiate(modules, imports).engine.open(options)
    try {
      this.#engine = this.#open()
    } catch (error) {
      if (!Array.isArray(error?.payload)) throw error
      throw new OptionsError(error.payload.map(({ name, message }) =>
        ({ name: inCamelCase(name), message: inCamelCase(message) })))
    }
  }

  begin (request) {
    try {
      return this.#engine.begin(request)
    } catch (error) { throw this.#failed(error) }
  }

  resume (exchange, known, change, reply) {
    try {
      return this.#engine.resume(exchange, known, change, reply)
    } catch (error) { throw this.#failed(error) }
  }

  finish (exchange, known, change) {
    try {
      return this.#engine.finish(exchange, known, change)
    } catch (error) { throw this.#failed(error) }
  }

  #failed (error) {
    this.#engine = this.#open()
    return error
  }
}

/** Returns the options of a preset. */
export function defaults (preset, modules) {
  if (preset !== 'safe' && preset !== 'express') {
    throw new OptionsError([{ name: 'preset', message: 'is not "safe" or "express"' }])
  }
  return instantiate(modules, imports).engine.defaults(preset)
}

const NAMES = /\b(?:store\.)?(allow_weak_secret|max_age|same_site|touch_after|max_session_bytes|ttl)\b/g

/** Converts option names to JavaScript's spelling. */
const inCamelCase = text => text.replace(NAMES, (_, name) =>
  name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase()))
