// Requests of this process that change one session at once take turns.
//
// A change is stored only while the stored text is the one that it was made for. All at once,
// many changes of one session would make one another fail, each time anew: a storm of writes
// that store nothing. So the first request has the turn, and those that come meanwhile wait, in
// their order. The next one gets the turn together with what its predecessor has stored, so that
// it meets no conflict.

/** So many requests wait for one session; more are refused. */
const MAX_WAITING = 2000

/** No request waits longer for its turn, and none keeps it longer from others, in milliseconds. */
const PATIENCE = 10_000

/** The longest that a request makes way after its second conflict, and after many. */
const PAUSE = 4
const LONGEST_PAUSE = 256

/** Lends out the turns. */
export class Turns {
  /** By identifiers. A line exists only while a request is at work on the session. */
  #lines = new Map()
  #maxWaiting
  #patience

  constructor ({ maxWaiting = MAX_WAITING, patience = PATIENCE } = {}) {
    this.#maxWaiting = maxWaiting
    this.#patience = patience
  }

  /** How many sessions are being changed. */
  get size () { return this.#lines.size }

  /**
   * Calls back with a `Turn` as soon as no other request is changing the session; with nothing
   * where too many are waiting, or those before this one take too long.
   */
  enter (id, callback) {
    const line = this.#lines.get(id)
    // Whose store never answered has lost the turn.
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
    // A Set remembers the order of insertion.
    for (const one of line.waiting) {
      line.waiting.delete(one)
      clearTimeout(one.timer)
      line.since = performance.now()
      // Not from within the one before it: many would be too deep.
      return queueMicrotask(() => one.callback(new Turn(this, id, line, left)))
    }
    if (this.#lines.get(id) === line) this.#lines.delete(id)
  }
}

/** The right to change a session, until its `end`. */
class Turn {
  #turns
  #id
  #line

  constructor (turns, id, line, left) {
    this.#turns = turns
    this.#id = id
    this.#line = line
    /** What is stored now, as a store tells it, where that is known. */
    this.left = left
  }

  /** Pass the turn on. */
  end () {
    this.#turns?.pass(this.#id, this.#line, this.left)
    this.#turns = undefined
  }
}

/**
 * How long a request makes way for other processes after so many conflicts, in milliseconds:
 * not at all after the first one, then for a while that nobody can foresee, so that not all try
 * again at once.
 */
export const pause = conflicts =>
  conflicts < 2 ? 0 : Math.random() * Math.min(PAUSE * 2 ** (conflicts - 2), LONGEST_PAUSE)

/** Whether a store request depends on what is stored. */
export const isConditional = ({ tag, val }) =>
  tag === 'replace' ? val.onlyKnown : tag === 'delete' && val
