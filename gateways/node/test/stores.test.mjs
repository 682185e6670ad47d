// All stores pass the same conformance suite.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { check } from 'edge-session/conformance'
import { MemoryStore, withSession } from 'edge-session/fetch'
import { MongoStore } from 'edge-session/mongodb'
import { RedisStore } from 'edge-session/redis'

const { MONGODB_URI, REDIS_URL } = process.env
const inMongoDB = { skip: !MONGODB_URI && 'MONGODB_URI is not set' }
const inRedis = { skip: !REDIS_URL && 'REDIS_URL is not set' }

test('the memory store conforms', async () => {
  await check(new MemoryStore())
})

/** Memory stores with flaws. `look` returns what is stored, and lets others run. */
const look = async (store, id) => {
  const found = store.load(id)
  await null
  return found
}
const methods = ['load', 'create', 'replace', 'touch', 'delete']
const flawed = {
  'folds the case of identifiers': store =>
    Object.fromEntries(methods.map(name => [name, (id, ...rest) => store[name](id.toLowerCase(), ...rest)])),
  'trims identifiers': store =>
    Object.fromEntries(methods.map(name => [name, (id, ...rest) => store[name](id.trim(), ...rest)])),
  'keeps the expiry of what it replaces': store => ({
    replace: (id, content, expected) => store.replace(id, { ...content, ...store.load(id), data: content.data }, expected)
  }),
  'creates in two steps': store => ({
    create: async (id, content) => !await look(store, id) && store.replace(id, content)
  }),
  'replaces in two steps': store => ({
    replace: async (id, content, expected) => {
      const found = await look(store, id)
      return expected === undefined || found?.data === expected ? store.replace(id, content) : found ?? false
    }
  }),
  'deletes in two steps': store => ({
    delete: async (id, expected) => {
      const found = await look(store, id)
      if (expected === undefined || found?.data !== expected) return store.delete(id, expected)
      store.delete(id)
      return true
    }
  }),
  'touches in two steps': store => ({
    touch: async (id, expires) => {
      const found = await look(store, id)
      return found ? store.replace(id, { ...found, expires }) : false
    }
  }),
  'deletes what has expired': store => ({
    delete: (id, expected) => store.delete(id, expected) || expected === undefined
  })
}
for (const [flaw, flawedBy] of Object.entries(flawed)) {
  test(`a store that ${flaw} does not conform`, async () => {
    const store = new MemoryStore()
    const sound = Object.fromEntries(methods.map(name => [name, store[name].bind(store)]))
    await assert.rejects(check({ ...sound, ...flawedBy(store) }), assert.AssertionError)
  })
}

test('the MongoDB store conforms', inMongoDB, async () => {
  const store = await MongoStore.connect(MONGODB_URI, { dbName: 'edge-session-node-conformance' })
  try { await check(store) } finally { await store.close() }
})

test('the Redis store conforms', inRedis, async () => {
  const store = await RedisStore.connect(REDIS_URL, { prefix: 'node-conformance:' })
  try { await check(store) } finally { await store.close() }
})

/** Starts servers by scripts/redis, and passes on their addresses. */
async function withServers (what, use) {
  const folder = await mkdtemp(join(process.env.EDGE_SESSION_TEST_DIR ?? tmpdir(), 'node-redis-'))
  const script = fileURLToPath(new URL('../../../scripts/redis', import.meta.url))
  try {
    const url = execFileSync(script, [what, folder], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
    await use(url.trim().replace(/^[^:]+:[/][/]/, '').replace(/[/].*/, '').split(','))
  } finally {
    for (const member of await readdir(folder)) {
      const pid = await readFile(join(folder, member, 'pid'), 'utf8').catch(() => undefined)
      if (pid) process.kill(Number(pid), 'SIGKILL')
    }
    await rm(folder, { recursive: true, maxRetries: 10 })
  }
}

test('the Redis store conforms in a cluster', inRedis, () => withServers('start-cluster', async servers => {
  const { createCluster } = await import('redis')
  const client = createCluster({ rootNodes: servers.slice(0, 2).map(server => ({ url: `redis://${server}` })) })
  client.on('error', () => {})
  await client.connect()
  try { await check(new RedisStore(client)) } finally { await client.close() }
}))

test('the Redis store conforms with sentinels', inRedis, () => withServers('start-sentinels', async servers => {
  const { createSentinel } = await import('redis')
  const sentinelRootNodes = servers.map(server => server.split(':')).map(([host, port]) => ({ host, port: Number(port) }))
  const client = await createSentinel({ name: 'edge', sentinelRootNodes }).on('error', () => {}).connect()
  try { await check(new RedisStore(client)) } finally { client.destroy() }
}))

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

test('a server that is not there, an unknown option and a store that was not awaited are told', async () => {
  await assert.rejects(RedisStore.connect('redis://127.0.0.1:1'), /ECONNREFUSED/)
  assert.throws(() => new RedisStore({}, { prefx: 'a:' }), /prefx is not an option of RedisStore/)
  assert.throws(() => new RedisStore({ get () {}, pttl () {} }), /client: is not a client of the package redis/)
  const secret = 'a secret for tests, long enough to sign with'
  const store = Promise.resolve(new MemoryStore())
  assert.throws(() => withSession(() => new Response(), { secret, store }), /the store has no load.*: it is a promise, await it/)
})

test('the Redis store comes back with its server, and a request does not wait for it', inRedis, async () => {
  const { createServer, connect } = await import('node:net')
  const { port, hostname } = new URL(REDIS_URL)
  const pipes = new Set()
  const proxy = createServer(socket => {
    const pipe = connect(port, hostname)
    for (const end of [socket, pipe]) end.on('error', () => {})
    pipes.add(socket.pipe(pipe)).add(pipe.pipe(socket))
  })
  const listen = port => new Promise(resolve => proxy.listen(port, '127.0.0.1', resolve))
  await listen(0)
  const place = proxy.address().port
  const store = await RedisStore.connect(`redis://127.0.0.1:${place}`, { prefix: 'node-proxy:' })
  try {
    assert.equal(await store.load('a'), undefined)
    for (const pipe of pipes) pipe.destroy()
    await new Promise(resolve => proxy.close(resolve))
    await assert.rejects(store.load('a'))
    await listen(place)
    const until = Date.now() + 10_000
    while (Date.now() < until && !await store.load('a').then(() => true, () => false)) {
      await new Promise(resolve => setTimeout(resolve, 10))
    }
    assert.equal(await store.load('a'), undefined)
  } finally {
    await store.close()
    for (const pipe of pipes) pipe.destroy()
    proxy.close()
  }
})
