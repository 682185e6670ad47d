// Requests of this process that change the same session take turns.
//
// A change is stored only if the stored text is still the one that it was based on. Without turns,
// concurrent changes of one session would keep causing each other to fail: a storm of writes that
// store nothing. So one request has the turn, and the others wait in order. The next one receives
// what its predecessor stored together with the turn, so it meets no conflict.

/** The maximum number of requests that wait for one session; more are refused. */
const MAX_WAITING = 2000

/** The maximum time that a request waits for its turn, or keeps it from others, in milliseconds. */
const PATIENCE = 10_000

/** The obstacle of a request that has no turn. */
export const BUSY = 'too many requests are changing this session at once'

/** The maximum pause after a request's second conflict, and after many. */
const PAUSE = 4
const LONGEST_PAUSE = 256

/** Manages the turns of all sessions. */
export class Turns {
  /** By identifier. A queue exists only while a request is changing the session. */
  #lines = new Map()
  #maxWaiting
  #patience

  constructor ({ maxWaiting = MAX_WAITING, patience = PATIENCE } = {}) {
    this.#maxWaiting = maxWaiting
    this.#patience = patience
  }

  /** The number of sessions that are being changed. */
  get size () { return this.#lines.size }

  /**
   * Calls back with a `Turn` as soon as no other request is changing the session, or with nothing
   * if too many are waiting or those before this one take too long.
   */
  enter (id, callback) {
    const line = this.#lines.get(id)
    // A request whose store did not reply in time has lost its turn.
    if (line === undefined || line.since + this.#patience <= performance.now()) {
      const line = { waiting: new Set(), since: performance.now() }
      this.#lines.set(id, line)
      return callback(new Turn(this, id, line))
    }
    if (line.waiting.size >= this.#maxWaiting) return callback()
    const one = { callback }
    one.timer = setTimeout(() => {
      line.waiting.delete(one)
      callback()
    }, this.#patience)
    line.waiting.add(one)
  }

  pass (id, line, left) {
    // A Set keeps insertion order.
    for (const one of line.waiting) {
      line.waiting.delete(one)
      clearTimeout(one.timer)
      line.since = performance.now()
      // Calling back directly would nest once per waiting request.
      return queueMicrotask(() => one.callback(new Turn(this, id, line, left)))
    }
    if (this.#lines.get(id) === line) this.#lines.delete(id)
  }
}

/** The right to change a session until `end` is called. */
class Turn {
  #turns
  #id
  #line

  constructor (turns, id, line, left) {
    this.#turns = turns
    this.#id = id
    this.#line = line
    /** What is stored now, as returned by the store, if known. */
    this.left = left
  }

  /** Whether this is the turn of the session `id`. */
  isOf (id) { return id === this.#id }

  /** Passes the turn on. */
  end () {
    this.#turns?.pass(this.#id, this.#line, this.left)
    this.#turns = undefined
  }
}

/**
 * Returns the pause before the next attempt after this many conflicts with other processes, in
 * milliseconds: none after the first one, then a random one, so that requests do not retry
 * together.
 */
export const pause = conflicts =>
  conflicts < 2 ? 0 : Math.random() * Math.min(PAUSE * 2 ** (conflicts - 2), LONGEST_PAUSE)
