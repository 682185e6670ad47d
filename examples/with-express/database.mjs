// Where the sessions are, and the users: with MongoDB in the same database, otherwise in memory.
import { MongoStore } from 'connect-mongo'
import connectPgSimple from 'connect-pg-simple'
import { RedisStore } from 'connect-redis'
import mongoose from 'mongoose'
import pg from 'pg'
import { createClient } from 'redis'

const inMemory = () => {
  const users = new Map()
  return { add: user => users.set(user.name, user), find: name => users.get(name) }
}

async function mongodb (url) {
  const connection = await mongoose.createConnection(url).asPromise()
  const User = connection.model('User', new mongoose.Schema({
    name: { type: String, unique: true },
    salt: Buffer,
    hash: Buffer
  }))
  return {
    store: MongoStore.create({ client: connection.getClient(), dbName: connection.name }),
    users: {
      add: user => User.updateOne({ name: user.name }, { $setOnInsert: user }, { upsert: true }),
      find: name => User.findOne({ name })
    }
  }
}

async function redis (url) {
  const client = await createClient({ url }).connect()
  return { store: new RedisStore({ client }), users: inMemory() }
}

async function postgres (url, session) {
  const pool = new pg.Pool({ connectionString: url })
  const PgStore = connectPgSimple(session)
  return { store: new PgStore({ pool, createTableIfMissing: true }), users: inMemory() }
}

const databases = {
  'mongodb:': mongodb,
  'mongodb+srv:': mongodb,
  'postgres:': postgres,
  'postgresql:': postgres,
  'redis:': redis,
  'rediss:': redis
}

/** Returns the store of the sessions, and the users. */
export async function open (url, session) {
  const [scheme] = /^[a-z+]+:/.exec(url) ?? []
  if (!(scheme in databases)) throw new Error('STORE_URL is not a mongodb://, redis:// or postgres:// address')
  return await databases[scheme](url, session)
}
