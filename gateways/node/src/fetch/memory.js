// Sessions in one process's memory. Replies synchronously.

export class MemoryStore {
  #sessions = new Map()
  #maxSessions

  /** Above `maxSessions`, the least recently used sessions are removed. */
  constructor ({ maxSessions = 100_000 } = {}) {
    this.#maxSessions = maxSessions
  }

  get size () { return this.#sessions.size }

  load (id) {
    const stored = this.#live(id)
    return stored && { ...stored }
  }

  create (id, content) {
    if (this.#live(id)) return false
    this.#keep(id, content)
    return true
  }

  replace (id, content, expected) {
    if (expected !== undefined) {
      const stored = this.#live(id)
      if (!stored) return false
      if (stored.data !== expected) return { ...stored }
    }
    this.#keep(id, content)
    return true
  }

  touch (id, expires) {
    const stored = this.#live(id)
    if (!stored) return false
    this.#keep(id, { ...stored, expires })
    return true
  }

  delete (id, expected) {
    const stored = this.#live(id)
    if (!stored) return false
    if (expected !== undefined && stored.data !== expected) return { ...stored }
    return this.#sessions.delete(id)
  }

  #live (id) {
    const stored = this.#sessions.get(id)
    if (stored === undefined || stored.expires > Date.now()) return stored
    this.#sessions.delete(id)
    return undefined
  }

  #keep (id, { data, expires }) {
    // A Map keeps insertion order.
    this.#sessions.delete(id)
    this.#sessions.set(id, { data, expires })
    if (this.#sessions.size > this.#maxSessions) this.#sessions.delete(this.#sessions.keys().next().value)
  }
}
