// Makes the mongod on a port a replica set of one and returns once it takes writes.
// usage: node initiate.mjs PORT
import { setTimeout as sleep } from 'node:timers/promises'
import { MongoClient } from 'mongodb'

const port = process.argv[2]
const ALREADY_INITIALIZED = 23

const client = new MongoClient(`mongodb://127.0.0.1:${port}/?directConnection=true`, { serverSelectionTimeoutMS: 10_000 })
const admin = client.db('admin')
try {
  const members = [{ _id: 0, host: `127.0.0.1:${port}` }]
  await admin.command({ replSetInitiate: { _id: 'rs0', members } })
    .catch(error => { if (error.code !== ALREADY_INITIALIZED) throw error })
  const deadline = Date.now() + 20_000
  while (!(await admin.command({ hello: 1 })).isWritablePrimary) {
    if (Date.now() > deadline) throw new Error(`mongod on port ${port} never became primary`)
    await sleep(20)
  }
} finally {
  await client.close()
}
