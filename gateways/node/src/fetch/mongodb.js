// Sessions in MongoDB for `edge-session/fetch`, with connect-mongo's documents and queries: {_id,
// expires: Date, session: JSON text}.
import { MongoClient } from 'mongodb'
import { Refused } from './refused.js'

const DUPLICATE_KEY = 11000
const UNAUTHORIZED = 13

/** The server's codes for documents that it never accepts: a validator, a capped collection, the size. */
const REFUSALS = new Set([121, 10003, 10334, 17419, 17420])

export class MongoStore {
  #collection
  /** The client, if it belongs to this store. */
  #client

  /** Uses a collection of the application's client. */
  constructor (collection) {
    // Changes based on an outdated read would be lost.
    this.#collection = discreet(collection.db
      ? collection.db.collection(collection.collectionName, { readPreference: 'primary' })
      : collection)
  }

  /**
   * Connects, and creates the TTL index unless `autoRemove` is "disabled". Sessions work without it:
   * expired ones are not served, but stay. A warning then says why.
   */
  static async connect (uri, { dbName, collection = 'sessions', autoRemove = 'native', ...options } = {}) {
    const client = await MongoClient.connect(uri, {
      appName: 'edge-session',
      serverSelectionTimeoutMS: 2000,
      ...(!/[?&]w=/.test(uri) && { w: 'majority' }),
      ...options
    })
    const sessions = client.db(dbName).collection(collection, { readPreference: 'primary' })
    if (autoRemove === 'native') await makeIndex(sessions)
    const store = new MongoStore(sessions)
    store.#client = client
    return store
  }

  async close () {
    await this.#client?.close()
  }

  async load (id) {
    return stored(await this.#collection.findOne(live(id)))
  }

  async create (id, { data, expires }) {
    const document = { _id: id, expires: new Date(expires), session: data }
    const isFree = written => written.then(() => true, error => {
      if (error.code !== DUPLICATE_KEY) throw error
      return false
    })
    if (await isFree(this.#collection.insertOne(document))) return true
    // It may have expired, and not have been removed yet. An upsert, because the server may remove it
    // just now.
    const expired = { _id: id, expires: { $lte: new Date() } }
    return await isFree(this.#collection.updateOne(expired, { $set: document }, { upsert: true }))
  }

  async replace (id, { data, expires }, expected) {
    const update = { $set: { _id: id, session: data, expires: new Date(expires) } }
    if (expected === undefined) {
      await this.#collection.updateOne({ _id: id }, update, { upsert: true })
      return true
    }
    const { matchedCount } = await this.#collection.updateOne({ ...live(id), session: expected }, update)
    return matchedCount > 0 || await this.#other(id)
  }

  async touch (id, expires) {
    const { matchedCount } = await this.#collection.updateOne(live(id), { $set: { expires: new Date(expires) } })
    return matchedCount > 0
  }

  async delete (id, expected) {
    const query = expected === undefined ? live(id) : { ...live(id), session: expected }
    const { deletedCount } = await this.#collection.deleteOne(query)
    return deletedCount > 0 || (expected !== undefined && await this.#other(id))
  }

  /** Returns what is stored instead of what was expected. */
  async #other (id) {
    return await this.load(id) ?? false
  }
}

async function makeIndex (sessions) {
  try {
    await sessions.createIndex({ expires: 1 }, { expireAfterSeconds: 0 })
  } catch (error) {
    if (typeof error?.code !== 'number') throw error
    const problem = await withoutIndex(sessions, error)
    if (problem) {
      console.warn(`edge-session: MongoDB: collection ${sessions.collectionName}: ${problem}; or set autoRemove to ` +
        '"disabled" if sessions are deleted in another way')
    }
  }
}

/** Returns what is wrong with the index, and the remedy; undefined if expired sessions are removed anyway. */
async function withoutIndex (sessions, error) {
  const indexes = await sessions.indexes().catch(() => [])
  for (const { name, key, expireAfterSeconds: after, partialFilterExpression } of indexes) {
    if (Object.entries(key).join() !== 'expires,1' || partialFilterExpression) continue
    if (after === 0) return undefined
    const effect = after === undefined
      ? 'does not remove expired sessions'
      : `removes sessions ${after} s after they have expired`
    return `its index ${name} ${effect}. Drop the index, and a correct one is created`
  }
  const why = `the index that removes expired sessions was not created: ${error.codeName ?? '?'}, code ${error.code}`
  if (await sessions.isCapped().catch(() => false)) {
    return `${why}. The collection is capped and also drops live sessions: use another one`
  }
  const grant = error.code === UNAUTHORIZED ? 'Grant the user createIndex, or create' : 'Create'
  return `${why}. ${grant} it manually: createIndex({expires: 1}, {expireAfterSeconds: 0})`
}

/**
 * Wraps a collection's operations. The server's messages may quote the document, its identifier and
 * the session's values, and errors are logged, so only the code is kept.
 */
function discreet (collection) {
  const operation = name => async (...given) => {
    try {
      return await collection[name](...given)
    } catch (error) {
      if (typeof error?.code !== 'number') throw error
      const { code, codeName } = error
      const Kind = REFUSALS.has(code) ? Refused : Error
      throw Object.assign(new Kind(`MongoDB refused the operation: ${codeName ?? 'code'} (${code})`), { code })
    }
  }
  const names = ['findOne', 'insertOne', 'updateOne', 'deleteOne']
  return Object.fromEntries(names.map(name => [name, operation(name)]))
}

/** connect-mongo's query for a document that has not expired. */
const live = id => ({ _id: id, $or: [{ expires: { $exists: false } }, { expires: { $gt: new Date() } }] })

function stored (document) {
  if (!document) return undefined
  const { session, expires } = document
  return {
    // Documents whose session is not text are left unchanged.
    data: typeof session === 'string' ? session : '',
    expires: expires instanceof Date ? expires.getTime() : undefined
  }
}
