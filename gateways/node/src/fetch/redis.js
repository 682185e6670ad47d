// Sessions in Redis or Valkey for `edge-session/fetch`, in connect-redis's keys and values. The server
// expires them.
import { createClient } from 'redis'

/** What PTTL returns for a key without an expiry. */
const PERMANENT = -1

/**
 * Runs a command on a key if its value is the expected one, and returns the value otherwise. ARGV:
 * expected, the command, what follows the key in it.
 */
const IF_UNCHANGED = `
local found = redis.call('GET', KEYS[1])
if not found then return false end
if found ~= ARGV[1] then return { redis.call('PTTL', KEYS[1]), found } end
redis.call(ARGV[2], KEYS[1], unpack(ARGV, 3))
return { 0, false }`

export class RedisStore {
  #client
  /** Whether the client belongs to this store. */
  #isOwn = false
  #prefix
  #disableTTL
  #disableTouch

  /**
   * Uses the application's client, which is connected: of one server, a cluster or sentinels. The
   * options are connect-redis's.
   */
  constructor (client, { prefix = 'sess:', disableTTL = false, disableTouch = false, ...unknown } = {}) {
    const [name] = Object.keys(unknown)
    if (name !== undefined) throw new TypeError(`${name} is not an option of RedisStore: there are prefix, disableTTL, disableTouch`)
    if (typeof client?.pTTL !== 'function') throw new TypeError('client: is not a client of the package redis')
    this.#client = client
    this.#prefix = prefix
    this.#disableTTL = disableTTL
    this.#disableTouch = disableTouch
  }

  /** Connects, or rejects with the reason. Other options are those of the package `redis`. */
  static async connect (url, { prefix, disableTTL, disableTouch, ...options } = {}) {
    // Waits for a server that it was connected to, and for no other.
    let isConnected = false
    const client = createClient({
      url,
      // A command is not kept until the server is back: its request has been answered by then.
      disableOfflineQueue: true,
      ...options,
      socket: {
        connectTimeout: 2000,
        reconnectStrategy: retries => isConnected && Math.min(retries * 50, 2000),
        ...options.socket
      }
    })
    // Each command fails, too.
    client.on('error', () => {})
    await client.connect()
    isConnected = true
    const store = new RedisStore(client, { prefix, disableTTL, disableTouch })
    store.#isOwn = true
    return store
  }

  async close () {
    if (this.#isOwn) await this.#client.close()
  }

  async load (id) {
    const key = this.#prefix + id
    const [data, left] = await this.#run(it => Promise.all([it.get(key), it.pTTL(key)]))
    return data === null ? undefined : stored(data, left)
  }

  async create (id, content) {
    const key = this.#prefix + id
    const left = seconds(content.expires)
    if (left <= 0) return await this.#run(it => it.exists(key)) === 0
    return await this.#run(it => it.set(key, content.data, { ...this.#expiring(left), NX: true })) !== null
  }

  async replace (id, { data, expires }, expected) {
    const key = this.#prefix + id
    const left = seconds(expires)
    if (expected !== undefined) {
      if (left <= 0) return await this.#ifUnchanged(key, expected, 'DEL')
      return await this.#ifUnchanged(key, expected, 'SET', data, ...this.#disableTTL ? [] : ['EX', String(left)])
    }
    // A session that is over is deleted.
    await this.#run(it => left <= 0 ? it.del(key) : it.set(key, data, this.#expiring(left)))
    return true
  }

  async touch (id, expires) {
    const key = this.#prefix + id
    if (this.#disableTouch) return true
    // Some versions of the package answer with a boolean.
    return Number(await this.#run(it => this.#disableTTL ? it.exists(key) : it.expire(key, seconds(expires)))) === 1
  }

  async delete (id, expected) {
    const key = this.#prefix + id
    if (expected !== undefined) return await this.#ifUnchanged(key, expected, 'DEL')
    return await this.#run(it => it.del(key)) === 1
  }

  #expiring (left) {
    return this.#disableTTL ? {} : { EX: left }
  }

  async #ifUnchanged (key, expected, ...command) {
    const found = await this.#run(it => it.eval(IF_UNCHANGED, { keys: [key], arguments: [expected, ...command] }))
    if (found === null) return false
    const [left, data] = found
    return data === null ? true : stored(data, left)
  }

  /** The server's messages may quote a key, which contains an identifier: only the code is kept. */
  async #run (commands) {
    try {
      return await commands(this.#client)
    } catch (error) {
      const [, code] = /^([A-Z]+)\b/.exec(error?.message ?? '') ?? []
      throw code === undefined ? error : new Error(`Redis refused the operation: ${code}`)
    }
  }
}

/** As connect-redis computes it. */
const seconds = expires => Math.ceil((expires - Date.now()) / 1000)

const stored = (data, left) => ({ data, expires: left === PERMANENT ? undefined : Date.now() + left })
