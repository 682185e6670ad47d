// All stores pass the same conformance suite.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { check } from 'edge-session/conformance'
import { MemoryStore } from 'edge-session/fetch'
import { MongoStore } from 'edge-session/mongodb'
import { RedisStore } from 'edge-session/redis'

const { MONGODB_URI, REDIS_URL } = process.env
const inMongoDB = { skip: !MONGODB_URI && 'MONGODB_URI is not set' }
const inRedis = { skip: !REDIS_URL && 'REDIS_URL is not set' }

test('the memory store conforms', async () => {
  await check(new MemoryStore())
})

test('the MongoDB store conforms', inMongoDB, async () => {
  const store = await MongoStore.connect(MONGODB_URI, { dbName: 'edge-session-node-conformance' })
  try { await check(store) } finally { await store.close() }
})

test('the Redis store conforms', inRedis, async () => {
  const store = await RedisStore.connect(REDIS_URL, { prefix: 'node-conformance:' })
  try { await check(store) } finally { await store.close() }
})

test('the Redis store keeps what connect-redis does, and its options', inRedis, async () => {
  const { createClient } = await import('redis')
  const client = await createClient({ url: REDIS_URL }).connect()
  try {
    const store = new RedisStore(client, { prefix: 'node-a:' })
    await store.replace('1', { data: '{"cookie":{}}', expires: Date.now() + 59_001 })
    assert.equal(await client.get('node-a:1'), '{"cookie":{}}')
    assert.equal(await client.ttl('node-a:1'), 60)
    const forever = new RedisStore(client, { prefix: 'node-a:', disableTTL: true, disableTouch: true })
    await forever.replace('2', { data: '{"cookie":{}}', expires: Date.now() + 59_001 })
    assert.equal(await client.ttl('node-a:2'), -1)
    assert.equal((await forever.load('2')).expires, undefined)
    await forever.touch('1', Date.now() + 1e6)
    assert.equal(await client.ttl('node-a:1'), 60)
    await client.del(['node-a:1', 'node-a:2'])
  } finally { await client.close() }
})

test('what Redis refuses is told without the key', inRedis, async () => {
  const store = await RedisStore.connect(REDIS_URL, { prefix: 'node-type:' })
  const { createClient } = await import('redis')
  const client = await createClient({ url: REDIS_URL }).connect()
  try {
    await client.lPush('node-type:secret-id', 'x')
    await assert.rejects(store.load('secret-id'), { message: 'Redis refused the operation: WRONGTYPE' })
  } finally {
    await client.del('node-type:secret-id')
    await client.close()
    await store.close()
  }
})
