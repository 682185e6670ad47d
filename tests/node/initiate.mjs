// Makes the mongods on these ports a replica set, and exits once it accepts writes.
// usage: node initiate.mjs PORT…
import { setTimeout as sleep } from 'node:timers/promises'
import { MongoClient } from 'mongodb'

const ports = process.argv.slice(2)
const ALREADY_INITIALIZED = 23

const client = new MongoClient(`mongodb://127.0.0.1:${ports[0]}/?directConnection=true`, { serverSelectionTimeoutMS: 10_000 })
const admin = client.db('admin')
try {
  // The first one becomes the primary.
  const members = ports.map((port, _id) => ({ _id, host: `127.0.0.1:${port}`, priority: _id === 0 ? 2 : 1 }))
  const settings = { electionTimeoutMillis: 2000 }
  await admin.command({ replSetInitiate: { _id: 'rs0', members, settings } })
    .catch(error => { if (error.code !== ALREADY_INITIALIZED) throw error })
  const deadline = Date.now() + 30_000
  while (!(await admin.command({ hello: 1 })).isWritablePrimary) {
    if (Date.now() > deadline) throw new Error(`mongod on port ${ports[0]} never became primary`)
    await sleep(20)
  }
  const isReady = async () => (await admin.command({ replSetGetStatus: 1 })).members
    .every(member => member.stateStr === 'PRIMARY' || member.stateStr === 'SECONDARY')
  while (!(await isReady())) {
    if (Date.now() > deadline) throw new Error('not all members of the replica set came up')
    await sleep(20)
  }
} finally {
  await client.close()
}
