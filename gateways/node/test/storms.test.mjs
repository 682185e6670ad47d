// Many concurrent requests that change one session, and requests that are too large.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { EventEmitter } from 'node:events'
import { test } from 'node:test'
import { MongoClient } from 'mongodb'
import { MemoryStore, withSession } from 'edge-session/fetch'
import { MongoStore } from 'edge-session/mongodb'
import * as bounds from '../src/bounds.js'
import { withTurns } from '../src/fetch/sessions.js'
import { modules } from '../src/modules.js'
import { Turns, pause } from '../src/turns.js'

const session = createRequire(import.meta.url)('../index.cjs')
const secret = 'a secret of at least 32 bytes is long'
const quiet = () => {}
const turn = () => new Promise(resolve => setImmediate(resolve))
const keys = count => Array.from({ length: count }, (_, number) => `k${number}`)

// A remote store: other requests run during every operation.
function elsewhere (store, names = ['load', 'create', 'replace', 'touch', 'delete']) {
  const counting = { asked: 0 }
  for (const name of names) {
    counting[name] = async (...args) => {
      counting.asked++
      await turn()
      return store[name](...args)
    }
  }
  return counting
}

// An application that sets the requested key once all requests have loaded the session.
function visits (store) {
  let loaded = 0
  let wanted = 1
  let go
  let all
  const handle = withSession(async (request, session) => {
    const key = new URL(request.url).pathname.slice(1)
    if (key === 'destroy') session.destroy()
    else if (key) session.data[key] = true
    else return Response.json(Object.keys(session.data))
    if (++loaded === wanted) go()
    await all
    return new Response()
  }, { secret, store, onError: quiet })
  const visit = (key, cookie) => handle(new Request(`http://localhost/${key}`, { headers: cookie ? { cookie } : {} }))
  const atOnce = (keys, cookie) => {
    loaded = 0
    wanted = keys.length
    all = new Promise(resolve => { go = resolve })
    return Promise.all(keys.map(key => visit(key, cookie)))
  }
  const begin = async () => {
    const [response] = await atOnce(['first'])
    return response.headers.getSetCookie()[0].split(';')[0]
  }
  return { visit, atOnce, begin }
}

async function storm (store, count) {
  const { visit, atOnce, begin } = visits(store)
  const cookie = await begin()
  store.asked = 0
  const answers = await atOnce(keys(count), cookie)
  assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200])
  assert.ok(store.asked <= 3 * count, `${store.asked} operations`)
  assert.deepEqual((await (await visit('', cookie)).json()).sort(), ['first', ...keys(count)].sort())
}

test('a thousand changes of one session at once ask the store thrice each', () =>
  storm(elsewhere(new MemoryStore()), 1000))

const { MONGODB_URI } = process.env
test('so they do in MongoDB', { skip: !MONGODB_URI && 'MONGODB_URI is not set' }, async t => {
  const dbName = `edge_session_storm_${process.pid}`
  const store = await MongoStore.connect(MONGODB_URI, { dbName })
  t.after(async () => {
    const client = await MongoClient.connect(MONGODB_URI)
    await client.db(dbName).dropDatabase()
    await client.close()
    await store.close()
  })
  await storm(elsewhere(store), 300)
})

test('a logout in a storm is not undone', async () => {
  const store = new MemoryStore()
  const { atOnce, begin } = visits(elsewhere(store))
  const cookie = await begin()
  const answers = await atOnce([...keys(10), 'destroy', 'late'], cookie)
  assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200])
  assert.equal(store.size, 0)
})

test('two processes lose nothing, and none fails', async () => {
  const store = elsewhere(new MemoryStore())
  const [one, two] = [visits(store), visits(store)]
  const cookie = await one.begin()
  const all = keys(50)
  const answers = await Promise.all([one.atOnce(all.slice(0, 25), cookie), two.atOnce(all.slice(25), cookie)])
  assert.deepEqual([...new Set(answers.flat().map(({ status }) => status))], [200])
  assert.equal((await (await one.visit('', cookie)).json()).length, 51)
})

test('a change that gets no turn fails as if the store were unavailable', async () => {
  const store = new MemoryStore()
  const told = []
  const act = (request, session) => { session.data.n = (session.data.n ?? 0) + 1; return new Response() }
  const handle = withTurns(act, { secret, store, onError: error => told.push(error.message) }, modules, new Turns({ maxWaiting: 0 }))
  const visit = cookie => handle(new Request('http://localhost/', { headers: cookie ? { cookie } : {} }))
  const [cookie] = (await visit()).headers.getSetCookie()[0].split(';')
  const replace = store.replace.bind(store)
  store.replace = async (...args) => { await turn(); return replace(...args) }
  const answers = await Promise.all([visit(cookie), visit(cookie)])
  assert.deepEqual(answers.map(({ status }) => status), [200, 503])
  assert.deepEqual(told, ['too many requests are changing this session at once'])
})

// The parts of a server that the drop-in uses: a request and its response.
function dropIn (middleware, cookie, act) {
  return new Promise((resolve, reject) => {
    const res = Object.assign(new EventEmitter(), {
      headers: {},
      statusCode: 200,
      getHeader (name) { return this.headers[name.toLowerCase()] },
      setHeader (name, value) { this.headers[name.toLowerCase()] = value },
      hasHeader (name) { return name.toLowerCase() in this.headers },
      getHeaderNames () { return Object.keys(this.headers) },
      writeHead () { this.headersSent = true; return this },
      end () {
        if (!this.headersSent) this.writeHead()
        resolve({ cookie: String(this.headers['set-cookie']).split(';')[0], session: req.session })
      }
    })
    const req = { url: '/', headers: cookie ? { cookie } : {}, socket: {} }
    middleware(req, res, error => {
      if (error) return reject(error)
      Promise.resolve(act(req)).then(() => res.end(), reject)
    })
  })
}

test('in the drop-in that merges, none of many changes is lost, and the store is asked thrice for each', async () => {
  const store = new session.MemoryStore()
  const middleware = session({ secret, preset: 'safe', store })
  const { cookie } = await dropIn(middleware, undefined, req => { req.session.first = true })
  let asked = 0
  for (const name of ['get', 'set']) {
    const real = store[name]
    store[name] = function (...args) { asked++; return real.apply(this, args) }
  }
  let loaded = 0
  let go
  const all = new Promise(resolve => { go = resolve })
  await Promise.all(keys(200).map(key => dropIn(middleware, cookie, req => {
    req.session[key] = true
    if (++loaded === 200) go()
    return all
  })))
  assert.ok(asked <= 600, `${asked} operations`)
  const { session: stored } = await dropIn(middleware, cookie, quiet)
  assert.deepEqual(Object.keys(stored).filter(key => key !== 'cookie').sort(), ['first', ...keys(200)].sort())
})

// ---------------------------------------------------------------------------- turns ----

const enter = (turns, id) => new Promise(resolve => turns.enter(id, resolve))

test('turns are had in the order of coming, and end without a trace', async () => {
  const turns = new Turns()
  const order = []
  const first = await enter(turns, 'a')
  const waiting = [1, 2].map(async number => {
    const its = await enter(turns, 'a')
    order.push([number, its.left])
    its.left = undefined
    its.end()
    its.end()
  })
  ;(await enter(turns, 'b')).end()
  first.left = 'text'
  first.end()
  await Promise.all(waiting)
  assert.deepEqual(order, [[1, 'text'], [2, undefined]])
  assert.equal(turns.size, 0)
})

test('behind too many, or behind one that takes too long, there is no turn', async t => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const turns = new Turns({ maxWaiting: 1, patience: 1000 })
  const first = await enter(turns, 'a')
  const waiting = enter(turns, 'a')
  assert.equal(await enter(turns, 'a'), undefined)
  t.mock.timers.tick(1000)
  assert.equal(await waiting, undefined)
  first.end()
  assert.equal(turns.size, 0)
})

test('who never ends its turn has lost it', async () => {
  const turns = new Turns({ patience: 0 })
  const lost = await enter(turns, 'a')
  const turn = await enter(turns, 'a')
  lost.end()
  assert.equal(turns.size, 1)
  turn.end()
  assert.equal(turns.size, 0)
})

test('pauses between processes are random and short', () => {
  assert.equal(pause(1), 0)
  for (let conflicts = 2; conflicts < 300; conflicts++) {
    assert.ok(pause(conflicts) <= Math.min(4 * 2 ** (conflicts - 2), 256))
  }
  assert.notEqual(pause(9), pause(9))
})

// --------------------------------------------------------------------------- bounds ----

const MANY = 16 << 20

test('of what is too large no more is handed over than shows it', () => {
  assert.equal(bounds.cookies('x'.repeat(MANY)).length, 16 * 1024 + 1)
  assert.deepEqual(bounds.cookies('a=\xe9'), Uint8Array.of(97, 61, 0xe9))
  assert.deepEqual([bounds.cookies(null), bounds.cookies(undefined)], [new Uint8Array(), new Uint8Array()])
  // The longest path of a cookie, and what distinguishes `/a` from `/ab`.
  assert.equal(bounds.path('/'.repeat(MANY)).length, 1024 + 1)
  assert.equal(bounds.forwardedProto('x'.repeat(MANY)), undefined)
  assert.equal(bounds.stored('x'.repeat(11), 10), '')
  assert.equal(bounds.stored('x'.repeat(10), 10), 'x'.repeat(10))
})

test('where the limit of cookies is, the component says', async () => {
  const handle = withSession((request, session) => {
    session.data.n = 1
    return new Response(session.origin)
  }, { secret })
  const visit = async cookie => handle(new Request('http://localhost/', { headers: { cookie } }))
  const [header] = (await visit('a=b')).headers.getSetCookie()
  const cookie = header.split(';')[0]
  const of = async size => (await visit(`${cookie}; ${'x'.repeat(size - cookie.length - 2)}`)).text()
  assert.equal(await of(16 * 1024), 'loaded')
  assert.equal(await of(16 * 1024 + 1), 'oversized')
  assert.equal(await of(MANY), 'oversized')
})

test('a change above the largest session fails, and is not handed over', async () => {
  const told = []
  const handle = withSession((request, session) => {
    session.data.text = 'x'.repeat(100 << 20)
    return new Response()
  }, { secret, onError: error => told.push(error.message) })
  assert.equal((await handle(new Request('http://localhost/'))).status, 500)
  assert.match(told[0], /more than 1048576\d\d bytes, more than maxSessionBytes, 1048576/)
  await assert.rejects(
    dropIn(session({ secret, preset: 'safe' }), undefined, req => { req.session.text = 'x'.repeat(2 << 20) }),
    { code: 'ERR_SESSION_TOO_LARGE', status: 500 })
})

test('a stored session above the largest is damaged, and stays', async () => {
  const store = new MemoryStore()
  const handle = withSession((request, session) => {
    session.data.n = 1
    return new Response(`${session.origin} ${session.id}`)
  }, { secret, store })
  const first = await handle(new Request('http://localhost/'))
  const cookie = first.headers.getSetCookie()[0].split(';')[0]
  const id = (await first.text()).split(' ')[1]
  const { data, expires } = store.load(id)
  const large = data.replace('"n":1', `"n":"${'x'.repeat(15 << 20)}"`)
  store.replace(id, { data: large, expires })
  const answer = await handle(new Request('http://localhost/', { headers: { cookie } }))
  assert.match(await answer.text(), /^damaged /)
  assert.equal(store.load(id).data, large)
})
