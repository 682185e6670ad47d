// Generated histories through express-session and through edge-session, with every store: statuses,
// bodies, headers, cookies, the application's view, the store's calls and its content must be
// equal.
//   CASES=1000 SEED=7 node --test test/differential.test.mjs
import assert from 'node:assert/strict'
import { randomInt, randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { MongoClient } from 'mongodb'
import { MongoStore } from 'connect-mongo'
import { RedisStore } from 'connect-redis'
import { createRequire } from 'node:module'
import { ANSWERS, clock, explain, memory, ours, theirs, world } from './rig.mjs'

const require = createRequire(import.meta.url)
const SEED = Number(process.env.SEED ?? randomInt(1 << 30))
const CASES = Number(process.env.CASES ?? 150)
const { MONGODB_URI } = process.env

// mulberry32
function random (seed) {
  const next = () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  return {
    pick: list => list[Math.floor(next() * list.length)],
    chance: probability => next() < probability,
    upTo: n => Math.floor(next() * (n + 1))
  }
}

function options ({ pick, chance }) {
  const cookie = {}
  const isFunction = chance(0.1)
  // express-session does not support `auto` from a function.
  const auto = isFunction ? [] : ['auto']
  if (chance(0.5)) cookie.maxAge = pick([60000, 3600000, 1000, null, 1500.5, -0.5])
  if (chance(0.3)) cookie.secure = pick([true, false, ...auto])
  if (chance(0.3)) cookie.sameSite = pick([true, false, 'strict', 'lax', 'none', ...auto])
  if (chance(0.2)) cookie.httpOnly = pick([true, false])
  if (chance(0.1)) cookie.domain = 'example.com'
  if (chance(0.1)) cookie.path = pick(['/', '/app'])
  if (chance(0.1)) cookie.partitioned = true
  if (chance(0.1)) cookie.priority = pick(['low', 'medium', 'high'])
  if (chance(0.05)) cookie.expires = pick([new Date(clock.now + 5000000), 7000, false, undefined])
  if (chance(0.05)) cookie[pick(['path', 'sameSite', 'domain', 'maxAge'])] = pick([undefined, null, '', false])
  return {
    resave: chance(0.3),
    saveUninitialized: chance(0.4),
    rolling: chance(0.3),
    ...(chance(0.4) && { unset: pick(['keep', 'destroy']) }),
    ...(chance(0.4) && { proxy: pick([true, false]) }),
    ...(chance(0.2) && { name: 'sid' }),
    ...(chance(0.1) && { genid: () => randomUUID() }),
    ...(chance(0.2) && { secret: ['new secret of more than thirty-two', 'keyboard cat of thirty-two bytes'] }),
    cookie: isFunction ? () => ({ ...cookie }) : cookie
  }
}

const VALUES = [1, 2, 'text', 'é\u2028"', null, true, [1, { b: [] }], { z: 1, a: 1.5 }]
const KEYS = ['a', 'b', 'c', '7', 'über']

function deed ({ pick, upTo }) {
  const at = clock.now
  return pick([
    () => ['set', pick(KEYS), pick(VALUES)],
    () => ['set', pick(KEYS), pick(VALUES)],
    () => ['set', pick(KEYS), pick(VALUES)],
    () => ['remove', pick(KEYS)],
    () => ['regenerate'],
    () => ['save'],
    () => ['reload'],
    () => ['touch'],
    () => ['destroy'],
    () => ['unset'],
    () => ['assign', pick(['expires', 'maxAge']), pick(['false', 'none', 'null', 'zero', 'number'])],
    () => ['become', `assigned${upTo(1e9)}`],
    () => ['wrap'],
    () => ['maxAge', pick([5000, 7200000, null, 0, -2e12, 70000.75])],
    () => ['cookie', ...pick([
      ['expires', at + 90000], ['expires', null], ['path', '/app'], ['domain', 'a.example'], ['httpOnly', false],
      ['secure', true], ['secure', false], ['sameSite', 'strict'], ['sameSite', true], ['partitioned', true],
      ['priority', 'high'], ['maxAge', -5000]
    ])]
  ])()
}

function step (chooser, without) {
  const { pick, chance, upTo } = chooser
  return {
    after: pick([0, 0, 1, 900, 30000, 61000]),
    deeds: Array.from({ length: upTo(3) }, () => deed(chooser)).filter(([name]) => name !== without),
    answer: chance(0.5) ? 'send' : pick(ANSWERS),
    cookie: chance(0.75) ? 'last' : pick(['none', 'first', 'cut', 'connect.sid=s%3Aabc.def', 'connect.sid=abc']),
    headers: chance(0.3) ? { 'x-forwarded-proto': pick(['https', 'http', 'https, http', ' HTTPS ']) } : {},
    method: chance(0.1) ? 'HEAD' : 'GET',
    path: chance(0.8) ? '/' : pick(['/app', '/app?x=/', '/apple', '/other?y'])
  }
}

async function play (makeStore, seed, { without, ...fixed } = {}) {
  clock.now = Math.floor(Date.now() / 1000) * 1000
  const chooser = random(seed)
  const settings = { ...options(chooser), ...fixed }
  const steps = Array.from({ length: 2 + chooser.upTo(5) }, () => step(chooser, without))
  const begin = clock.now
  const worlds = await Promise.all([world(theirs, settings, makeStore('theirs')), world(ours, settings, makeStore('ours'))])
  try {
    const told = []
    const { path } = typeof settings.cookie === 'function' ? settings.cookie() : settings.cookie
    for (const { after, ...request } of steps) {
      clock.now += after
      // express-session 1.19.0 only checks that it begins with `/app`.
      if (path === '/app' && request.path === '/apple') request.path = '/app/le'
      told.push(request)
      const [expected, actual] = [await worlds[0].step(request), await worlds[1].step(request)]
      explain(expected, actual)
      const story = () => JSON.stringify({ seed, settings, began: begin, told }, null, 1)
      try {
        assert.deepEqual(actual, expected)
      } catch (error) {
        error.stack += `\n${story()}`
        throw error
      }
    }
  } finally {
    await Promise.all(worlds.map(world => world.close()))
    clock.now = undefined
  }
}

async function playAll (makeStore, cases, fixed) {
  for (let at = 0; at < cases; at++) await play(makeStore, SEED + at, fixed)
}

test(`with MemoryStore (SEED=${SEED})`, () => playAll(() => memory, CASES))

test(`with a store that has no touch (SEED=${SEED})`, () => playAll(() => async session => {
  const made = await memory(session)
  made.store.touch = undefined
  return made
}, CASES / 3))

test(`with memorystore (SEED=${SEED})`, () => playAll(() => async session => {
  const store = new (require('memorystore')(session))({ ttl: 100000 })
  const documents = async () => store.store.keys().map(key => `${key} ${store.store.peek(key)}`)
  return { store, documents }
}, CASES / 3))

test(`with connect-redis (SEED=${SEED})`, () => playAll(() => async () => {
  const kept = new Map()
  const client = {
    get: async key => kept.get(key)?.value,
    set: async (key, value, mode, ttl) => { kept.set(key, { value, ttl }) },
    del: async keys => { keys.forEach(key => kept.delete(key)) },
    expire: async (key, ttl) => { if (kept.has(key)) kept.get(key).ttl = ttl }
  }
  return {
    store: new RedisStore({ client }),
    documents: async () => [...kept].map(([key, { value, ttl }]) => `${key} ${ttl} ${value}`)
  }
}, CASES / 3))

test(`with connect-mongo (SEED=${SEED})`, { skip: !MONGODB_URI && 'MONGODB_URI is not set' }, async () => {
  const client = await MongoClient.connect(MONGODB_URI)
  const db = client.db(`edge_session_node_${process.pid}`)
  let number = 0
  try {
    // With touchAfter, connect-mongo removes its lastModified from the session when it saves,
    // between express-session's two checks for changes.
    const late = { resave: false, without: 'reload' }
    for (const [given, fixed] of [[{}], [{ stringify: false }], [{ touchAfter: 30 }, late]]) {
      const makeStore = side => async () => {
        const collection = db.collection(`${side}_${number++}`)
        return {
          store: MongoStore.create({
            client, dbName: db.databaseName, collectionName: collection.collectionName, autoRemove: 'disabled', ...given
          }),
          documents: async () => (await collection.find().toArray()).map(document => JSON.stringify(document))
        }
      }
      await playAll(makeStore, CASES / 5, fixed)
    }
  } finally {
    await db.dropDatabase()
    await client.close()
  }
})
