import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { createServer } from 'node:http'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import { inspect } from 'node:util'
import { Hono } from 'hono'
import { MongoClient } from 'mongodb'
import { MemoryStore, OptionsError, Refused, withSession } from 'edge-session/fetch'
import { MongoStore } from 'edge-session/mongodb'
import { modules } from '../generated/about.js'

const secret = 'a secret of at least 32 bytes is long'
const quiet = () => {}

// A browser of one visitor.
function visitor (handle) {
  let cookie
  return async (path = '/', init = {}) => {
    const headers = new Headers(init.headers)
    if (cookie) headers.append('cookie', cookie)
    const response = await handle(new Request(`http://localhost${path}`, { ...init, headers }))
    cookie = response.headers.getSetCookie().at(-1)?.split(';')[0] ?? cookie
    return response
  }
}

const count = (request, session) => {
  session.data.n = (session.data.n ?? 0) + 1
  return new Response(String(session.data.n))
}

// A store whose content tests can read.
class OpenStore extends MemoryStore {
  ids = new Set()
  create (id, content) { this.ids.add(id); return super.create(id, content) }
  replace (id, content, expected) { this.ids.add(id); return super.replace(id, content, expected) }
  // Excludes notes about moved sessions.
  texts () { return [...this.ids].map(id => this.load(id)?.data).filter(text => text && !text.includes('"movedTo"')) }
}

test('a session is kept from request to request', async () => {
  const store = new OpenStore()
  const visit = visitor(withSession(count, { secret, store }))
  const first = await visit()
  const [cookie] = first.headers.getSetCookie()
  const [, id, signature] = /^connect\.sid=s%3A([\w-]{32})\.([^;]+); Path=\/; HttpOnly; SameSite=Lax$/.exec(cookie)
  const hmac = createHmac('sha256', secret).update(id).digest('base64').replace(/=+$/, '')
  assert.equal(decodeURIComponent(signature), hmac)
  assert.equal(first.headers.get('cache-control'), 'no-store')
  assert.equal(await (await visit()).text(), '2')
  assert.deepEqual(store.texts(), [
    '{"cookie":{"originalMaxAge":null,"expires":null,"secure":false,"httpOnly":true,"path":"/","sameSite":"lax"},"n":2}'
  ])
})

test('random numbers are read when an identifier is made, and none ahead', async t => {
  const draw = t.mock.method(crypto, 'getRandomValues')
  const visit = visitor(withSession(count, { secret }))
  await visit()
  const bytes = () => draw.mock.calls.reduce((sum, call) => sum + call.arguments[0].byteLength, 0)
  assert.equal(bytes(), 24, 'an identifier')
  await visit()
  assert.equal(bytes(), 24, 'no new one')
})

test('who only looks gets no session', async () => {
  const store = new OpenStore()
  const visit = visitor(withSession((request, session) => new Response(JSON.stringify(session.data)), { secret, store }))
  const response = await visit()
  assert.deepEqual(response.headers.getSetCookie(), [])
  assert.equal(store.size, 0)
})

test('what nobody changed stays as it is, byte for byte', async () => {
  const store = new OpenStore()
  const visit = visitor(withSession(count, { secret, store }))
  await visit()
  const [id] = store.ids
  const cookie = '{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}'
  store.replace(id, { data: `{"cookie":${cookie},"f":1.0,"n":7,"s":"\\ud800","big":12345678901234567890}`, expires: Date.now() + 1e6 })
  assert.equal(await (await visit()).text(), '8')
  assert.deepEqual(store.texts(), [`{"cookie":${cookie},"f":1.0,"n":8,"s":"\\ud800","big":12345678901234567890}`])
})

test('what express-session would drop, a handler does not see', async () => {
  const store = new OpenStore()
  const seen = []
  const visit = visitor(withSession((request, session) => {
    seen.push([JSON.stringify(session.data), session.maxAge, session.cookie.sameSite, session.cookie.path])
    session.data.n = (session.data.n ?? 0) + 1
    return new Response()
  }, { secret, store }))
  await visit()
  const [id] = store.ids
  const cookie = '{"originalMaxAge":7000,"sameSite":true,"path":"/app"}'
  store.replace(id, { data: `{"a":1,"save":1,"a":2,"cookie":${cookie},"__proto__":3}`, expires: Date.now() + 1e6 })
  await visit()
  assert.deepEqual(seen, [['{}', null, 'lax', '/'], ['{"a":2}', 7000, 'strict', '/app']])
  assert.match(store.texts()[0], /^{"a":2,"cookie":{[^}]*},"n":1}$/)
})

test('large texts, and such that are not ASCII', async () => {
  const texts = ['é'.repeat(300_000), 'x'.repeat(700_000), '€'.repeat(150), '😀 "\\\u2028', 'a'.repeat(199) + 'ü']
  const visit = visitor(withSession(async (request, session) => {
    const { text } = session.data
    session.data.text = await request.text()
    return Response.json(text ?? null)
  }, { secret }))
  let before = null
  for (const text of texts) {
    assert.equal(await (await visit('/', { method: 'POST', body: text })).json(), before)
    before = text
  }
  // Above the maximum size, the session stays unchanged.
  const large = await visitor(withSession((request, session) => {
    session.data.text = 'x'.repeat(1 << 20)
    return new Response()
  }, { secret, onError: quiet }))()
  assert.equal(large.status, 500)
})

test('renew, regenerate, destroy', async () => {
  const store = new OpenStore()
  const visit = visitor(withSession((request, session) => {
    const deed = new URL(request.url).pathname.slice(1)
    if (deed === 'login') { session.renew(); session.data.user = 'zoe' }
    if (deed === 'regenerate') { session.regenerate(); session.data.anew = true }
    if (deed === 'destroy') session.destroy()
    if (deed === 'count') session.data.n = (session.data.n ?? 0) + 1
    return Response.json({ id: session.id, isNew: session.isNew, data: session.data })
  }, { secret, store }))
  const of = async path => (await visit(path)).json()
  const first = await of('/count')
  assert.equal(first.isNew, true)
  await of('/login')
  const second = await of('/')
  assert.notEqual(second.id, first.id)
  assert.deepEqual(second.data, { n: 1, user: 'zoe' })
  assert.equal(store.load(first.id), undefined)
  await of('/regenerate')
  assert.deepEqual((await of('/')).data, { anew: true })
  const bye = await visit('/destroy')
  assert.match(bye.headers.getSetCookie()[0], /^connect\.sid=; .*1970/)
  assert.deepEqual(store.texts(), [])
})

test('a lifetime of its own', async () => {
  const visit = visitor(withSession((request, session) => {
    if (request.url.endsWith('/remember')) session.maxAge = 3600000
    session.data.a = 1
    return new Response(String(session.maxAge))
  }, { secret }))
  await visit()
  const response = await visit('/remember')
  const expires = new Date(/Expires=([^;]+)/.exec(response.headers.getSetCookie()[0])[1])
  assert.ok(Math.abs(expires - Date.now() - 3600000) < 5000)
  assert.equal(await (await visit()).text(), '3600000')
})

test('parallel requests merge, and what was ended is not brought back', async () => {
  const store = new OpenStore()
  const visit = visitor(withSession(async (request, session) => {
    const { searchParams: query, pathname } = new URL(request.url)
    if (query.has('set')) session.data[query.get('set')] = true
    await wait(Number(query.get('after') ?? 0))
    if (pathname === '/out') session.destroy()
    return Response.json(session.data)
  }, { secret, store }))
  await visit('/?set=begin')
  await Promise.all([visit('/?set=a&after=50'), visit('/?set=b&after=10'), visit('/?set=c&after=30')])
  assert.deepEqual(await (await visit()).json(), { begin: true, b: true, c: true, a: true })
  await Promise.all([visit('/?set=late&after=50'), visit('/out?after=10')])
  assert.deepEqual(store.texts(), [])
})

test('answers whose headers cannot be changed', async () => {
  const visit = visitor(withSession((request, session) => {
    session.data.a = 1
    return Response.redirect('http://localhost/elsewhere')
  }, { secret }))
  const response = await visit()
  assert.equal(response.status, 302)
  assert.equal(response.headers.get('location'), 'http://localhost/elsewhere')
  assert.equal(response.headers.getSetCookie().length, 1)
})

test('a store that fails, refuses, or does not answer', async () => {
  const store = new OpenStore()
  const told = []
  const options = { secret, store, storeTimeout: 50, onError: error => told.push(error.message) }
  const visit = visitor(withSession(count, options))
  await visit()
  store.load = async () => { throw new Error('down') }
  const down = await visit()
  assert.equal(down.status, 503)
  assert.equal(down.headers.get('cache-control'), 'no-store')
  store.load = () => new Promise(() => {})
  assert.equal((await visit()).status, 503)
  delete store.load
  store.replace = () => { throw new Refused('never') }
  assert.equal((await visit()).status, 500)
  assert.deepEqual(told, ['down', 'the store did not respond within 50 ms', 'never', 'the session failed: never'])
  store.load = async () => { throw new Error('down') }
  const anonymous = visitor(withSession((request, session) => new Response(session.origin), { ...options, onStoreError: 'anonymous' }))
  assert.equal(await (await anonymous('/', { headers: { cookie: (await visitorCookie()) } })).text(), 'detached')
})

async function visitorCookie () {
  const response = await withSession(count, { secret })(new Request('http://localhost/'))
  return response.headers.getSetCookie()[0].split(';')[0]
}

test('a path outside has no session', async () => {
  const visit = visitor(withSession((request, session) => new Response(String(session)), { secret, cookie: { path: '/app' } }))
  assert.equal(await (await visit('/other')).text(), 'null')
})

test('a secure cookie needs a secure request', async () => {
  const handle = withSession(count, { secret, proxy: true, cookie: { secure: true } })
  const cookies = async (url, headers) => (await handle(new Request(url, { headers }))).headers.getSetCookie().length
  assert.equal(await cookies('http://localhost/'), 0)
  assert.equal(await cookies('http://localhost/', { 'x-forwarded-proto': 'https' }), 1)
  assert.equal(await cookies('https://localhost/'), 1)
})

test('everything that is wrong with the options is said at once', () => {
  assert.throws(() => withSession(count, { secret, nmae: 'x', cookie: { maxAge: '1h' } }),
    error => error instanceof OptionsError && error.problems.map(({ name }) => name).join() === 'nmae,cookie.maxAge')
  assert.throws(() => withSession(count, { secret: 'short', name: 'a b' }),
    error => error.problems.map(({ name }) => name).join() === 'secret,name')
})

test('an unknown option is refused by its name, with the nearest known one', () => {
  const problems = options => {
    try {
      withSession(count, { secret, ...options })
    } catch (error) { return error.problems.map(({ name, message }) => `${name} ${message}`) }
  }
  assert.deepEqual(problems({ saveUninitialised: true }), ['saveUninitialised is not an option: did you mean saveUninitialized?'])
  assert.deepEqual(problems({ cookie: { maxAges: 1, nonsense: 1 } }),
    ['cookie.maxAges is not an option: did you mean cookie.maxAge?', 'cookie.nonsense is not an option'])
})

test('a value that an option cannot have is refused, also if JSON has none for it', () => {
  const cyclic = {}
  cyclic.self = cyclic
  const wrong = [NaN, Infinity, 1n, Symbol('a'), () => 60000, new Date(NaN), cyclic, '1h', {}, []]
  for (const value of wrong) {
    for (const options of [{ ttl: value }, { rolling: value }, { preset: value }, { cookie: { maxAge: value } }, { cookie: { expires: value } }]) {
      assert.throws(() => withSession(count, { secret, ...options }), error => error instanceof OptionsError &&
        error.problems.length === 1 && /^is (.*, )?not /.test(error.problems[0].message), inspect(options))
    }
  }
  const expires = [new Date(Date.now() + 60000), new Date(8.64e15)]
  for (const date of expires) withSession(count, { secret, cookie: { expires: date } })
  withSession(count, { secret, preset: null, ttl: null, cookie: null, proxy: undefined })
})

test('the status and the message of a failure reach the visitor, and the reason reaches onError', async () => {
  const store = new OpenStore()
  const told = []
  const options = { secret, store, onError: error => told.push(error.message) }
  const answer = async (handler, options) => {
    const response = await visitor(withSession(handler, options))()
    return [response.status, await response.text()]
  }
  const set = value => (request, session) => { session.data.a = value; return new Response('never') }
  assert.deepEqual(await answer(set('x'.repeat(200)), { ...options, maxSessionBytes: 150 }), [500, 'The session could not be saved.\n'])
  assert.deepEqual(await answer((request, session) => { session.data.save = 1 }, options), [500, 'The session could not be saved.\n'])
  store.create = () => { throw new Error('down') }
  assert.deepEqual(await answer(set(1), options), [503, 'Sessions are unavailable. Please try again.\n'])
  const [large, reserved, down] = told
  assert.match(large, /^the session failed: the session would have more than 20\d bytes, more than maxSessionBytes, 150$/)
  assert.match(reserved, /^the session failed: .*save/)
  assert.deepEqual([down, told.length], ['down', 3])
})

test('in Hono', async () => {
  const app = new Hono()
  app.get('/', c => {
    const { session } = c.env
    session.data.n = (session.data.n ?? 0) + 1
    c.header('Set-Cookie', 'own=1', { append: true })
    return c.text(`${session.data.n} ${c.env.KEY}`)
  })
  const handle = withSession((request, session, env, context) => app.fetch(request, { ...env, session }, context), { secret })
  const visit = visitor(request => handle(request, { KEY: 'value' }))
  const response = await visit()
  assert.equal(await response.text(), '1 value')
  assert.equal(response.headers.getSetCookie().length, 2)
  assert.equal(await (await visit()).text(), '2 value')
})

// Like Bun's: its methods only work on the object itself.
class BunServer {
  #calls = []
  #answer
  constructor (answer = true) { this.#answer = answer }
  upgrade (request, options) { this.#calls.push(options); return this.#answer }
  requestIP () { return this.#calls.length }
  get calls () { return this.#calls }
}

test('an upgrade by Bun\'s server takes the cookie along, after the session is stored', async () => {
  const store = new OpenStore()
  const socket = () => new Request('http://localhost/', { headers: { upgrade: 'websocket' } })
  const change = (session, server) => {
    assert.equal(typeof server.requestIP(), 'number')
    session.data.n = 1
  }
  const upgrade = options => (request, session, server) => {
    change(session, server)
    if (server.upgrade(request, options)) return
    return new Response('no upgrade', { status: 426 })
  }
  const options = { data: { a: 1 }, headers: { 'X-Own': 'yes', 'Set-Cookie': 'own=1' } }
  for (const given of [options, { ...options, headers: new Headers(options.headers) }]) {
    const server = new BunServer()
    assert.equal(await withSession(upgrade(given), { secret, store })(socket(), server), undefined)
    const [{ data, headers }] = server.calls
    assert.deepEqual([data, headers.get('x-own')], [{ a: 1 }, 'yes'])
    assert.match(headers.getSetCookie().join(), /^own=1,connect\.sid=s%3A/)
  }
  assert.equal(store.texts().length, 2)

  // A request without an upgrade calls the server directly.
  const none = new BunServer(false)
  assert.equal((await withSession(upgrade(), { secret })(new Request('http://localhost/'), none)).status, 426)
  assert.equal((await withSession(upgrade(), { secret })(socket(), none)).status, 400)

  // If the session is not stored there is no upgrade, and if the handler fails there is no change.
  const failing = new BunServer()
  store.create = () => { throw new Error('down') }
  assert.equal((await withSession(upgrade(), { secret, store, onError: quiet })(socket(), failing)).status, 503)
  await assert.rejects(withSession((request, session, server) => {
    server.upgrade(request)
    throw new Error('the handler failed')
  }, { secret })(socket(), failing), { message: 'the handler failed' })
  assert.deepEqual(failing.calls, [])

  // Without a session, and without a cookie.
  const server = new BunServer()
  assert.equal(await withSession((request, session, server) => { server.upgrade(request) },
    { secret, cookie: { path: '/app' } })(socket(), server), undefined)
  assert.equal(await withSession((request, session, server) => { server.upgrade(request) }, { secret })(socket(), server), undefined)
  assert.deepEqual(server.calls.map(({ headers }) => [...headers]), [[], []])
})

test('a response that is answered to all has the cookie of none', async () => {
  const done = new Response(null, { status: 204 })
  const handle = withSession((request, session) => { session.data.n = 1; return done }, { secret })
  for (let n = 0; n < 3; n++) {
    const response = await handle(new Request('http://localhost/'))
    assert.deepEqual([response.status, response.headers.getSetCookie().length], [204, 1])
  }
  assert.deepEqual([...done.headers], [])
})

test('a handler that answers nothing, or what no cookie can be added to', async () => {
  const told = []
  // Like Deno's response to an upgrade: its headers are immutable, and it cannot be copied.
  const { headers } = Response.redirect('http://localhost/')
  const upgraded = { status: 101, body: null, headers }
  for (const answer of [undefined, Response.error(), upgraded]) {
    const handle = withSession((request, session) => { session.data.n = 1; return answer },
      { secret, onError: ({ message }) => told.push(message.split(': ')[1]) })
    assert.equal(await handle(new Request('http://localhost/')), answer)
    const look = withSession((request, session) => { assert.equal(session.isNew, true); return answer }, { secret, onError: quiet })
    assert.equal(await look(new Request('http://localhost/')), answer)
  }
  assert.deepEqual(told, ['none', '0', '101'])
})

test('modules that are passed in', async () => {
  const compiled = Object.fromEntries(await Promise.all(modules.map(async name =>
    [name, await WebAssembly.compile(await readFile(new URL(`../generated/${name}`, import.meta.url)))])))
  for (const modules of [() => compiled, async () => compiled]) {
    const passed = visitor(withSession(count, { secret, modules }))
    await passed()
    assert.equal(await (await passed()).text(), '2')
  }
})

test('the store in memory forgets what is expired, and what was used least', () => {
  const store = new MemoryStore({ maxSessions: 2 })
  const content = { data: '{}', expires: Date.now() + 1000 }
  for (const id of ['a', 'b']) assert.equal(store.create(id, content), true)
  assert.equal(store.create('a', content), false)
  store.touch('a', content.expires)
  store.create('c', content)
  assert.deepEqual(['a', 'b', 'c'].map(id => Boolean(store.load(id))), [true, false, true])
  store.touch('c', Date.now() - 1)
  assert.equal(store.load('c'), undefined)
})

test('what MongoDB refuses is told without the document', async () => {
  // Like the driver's: the server's message may quote what was written, and errors are printed in
  // full.
  const refusal = Object.assign(
    new Error('E11000 duplicate key error dup key: { _id: "hunter2" }'),
    { code: 121, codeName: 'DocumentValidationFailure', errInfo: { considered: 'hunter2' } })
  const unreachable = new Error('connect ECONNREFUSED 127.0.0.1:27017')
  const failing = error => new MongoStore(Object.fromEntries(
    ['findOne', 'insertOne', 'updateOne', 'deleteOne'].map(name => [name, () => Promise.reject(error)])))
  const content = { data: '{}', expires: 0 }
  for (const ask of [
    store => store.load('hunter2'), store => store.create('hunter2', content),
    store => store.replace('hunter2', content), store => store.replace('hunter2', content, '{}'),
    store => store.touch('hunter2', 0), store => store.delete('hunter2')
  ]) {
    const error = await ask(failing(refusal)).catch(error => error)
    assert.match(error.message, /DocumentValidationFailure \(121\)/)
    assert.ok(error instanceof Refused, 'no outage')
    assert.doesNotMatch(inspect(error, { depth: 9 }), /hunter2/)
    await assert.rejects(ask(failing(unreachable)), /ECONNREFUSED/)
  }
  const duplicate = () => Promise.reject(Object.assign(new Error('dup key'), { code: 11000 }))
  const taken = new MongoStore({ insertOne: duplicate, updateOne: duplicate })
  assert.equal(await taken.create('a', content), false)
})

const { MONGODB_URI } = process.env
test('the store in MongoDB', { skip: !MONGODB_URI && 'MONGODB_URI is not set' }, async t => {
  const dbName = `edge_session_fetch_${process.pid}`
  const store = await MongoStore.connect(MONGODB_URI, { dbName })
  const client = await MongoClient.connect(MONGODB_URI)
  const collection = client.db(dbName).collection('sessions')
  t.after(async () => {
    await client.db(dbName).dropDatabase()
    await client.close()
    await store.close()
  })
  const content = (data, left = 10000) => ({ data, expires: Date.now() + left })

  await t.test('a collection that is not quite as wished is used, and what is missing is named', async t => {
    const warn = t.mock.method(console, 'warn', () => {})
    const used = async (name, prepare) => {
      await prepare(client.db(dbName).collection(name))
      warn.mock.resetCalls()
      const store = await MongoStore.connect(MONGODB_URI, { dbName, collection: name, appName: `${dbName}_${name}` })
      assert.equal(await store.create('a', content('{}')), true, name)
      await store.close()
      return warn.mock.calls.map(call => call.arguments[0]).join()
    }
    const another = await used('another_name', it => it.createIndex({ expires: 1 }, { name: 'ours', expireAfterSeconds: 0 }))
    assert.equal(another, '', 'an equal index is enough')
    assert.match(await used('other_options', it => it.createIndex({ expires: 1 }, { expireAfterSeconds: 60 })),
      /other_options: its index expires_1 removes sessions 60 s after .*autoRemove to "disabled"/)
    assert.match(await used('no_ttl', it => it.createIndex({ expires: 1 })), /does not remove expired sessions/)
    const capped = () => client.db(dbName).createCollection('capped', { capped: true, size: 1 << 20 })
    assert.match(await used('capped', capped), /capped and also drops live sessions: use another one/)
    const admin = client.db('admin')
    // Of this client alone: other tests use the server at the same time.
    const failing = { failCommands: ['createIndexes'], errorCode: 13, appName: `${dbName}_no_right` }
    await admin.command({ configureFailPoint: 'failCommand', mode: { times: 1 }, data: failing })
    assert.match(await used('no_right', async () => {}), /Unauthorized, code 13\. Grant the user createIndex/)
  })

  await t.test('what the server removes while its identifier is taken again leaves it free', async () => {
    const sessions = client.db(dbName).collection('removed_meanwhile')
    await sessions.insertOne({ _id: 'a', expires: new Date(0), session: '{}' })
    const store = new MongoStore({
      insertOne: document => sessions.insertOne(document),
      updateOne: async (...args) => {
        await sessions.deleteOne({ _id: 'a' })
        return sessions.updateOne(...args)
      }
    })
    assert.equal(await store.create('a', content('{}')), true)
    assert.equal(await new MongoStore(sessions).create('a', content('{}')), false)
  })

  await t.test('what a validator refuses is no outage', async () => {
    await client.db(dbName).createCollection('validated', { validator: { session: { $regex: 'never' } } })
    const store = await MongoStore.connect(MONGODB_URI, { dbName, collection: 'validated' })
    const handle = withSession(count, { secret, store, onError: quiet })
    assert.equal((await handle(new Request('http://localhost/'))).status, 500)
    await store.close()
  })

  await t.test('five operations', async () => {
    assert.equal(await store.load('a'), undefined)
    assert.equal(await store.create('a', content('1')), true)
    assert.equal(await store.create('a', content('2')), false)
    assert.equal((await store.load('a')).data, '1')
    assert.equal(await store.replace('a', content('2'), '1'), true)
    assert.equal((await store.replace('a', content('3'), '1')).data, '2')
    assert.equal(await store.replace('b', content('3'), '1'), false)
    assert.equal(await store.replace('b', content('3')), true)
    const later = Date.now() + 99000
    assert.equal(await store.touch('a', later), true)
    assert.equal((await store.load('a')).expires, later)
    assert.equal(await store.touch('c', later), false)
    assert.equal((await store.delete('a', '1')).data, '2')
    assert.equal(await store.delete('a', '2'), true)
    assert.equal(await store.delete('a', '2'), false)
    assert.equal(await store.delete('b'), true)
    assert.equal(await store.delete('b'), false)
    assert.deepEqual((await collection.indexes()).map(({ name, expireAfterSeconds }) => [name, expireAfterSeconds])[1], ['expires_1', 0])
  })

  await t.test('documents and sessions that express-session and connect-mongo share', async () => {
    const visit = visitor(withSession(count, { secret, store }))
    const first = await visit()
    const cookie = first.headers.getSetCookie()[0].split(';')[0]
    const [document] = await collection.find().toArray()
    assert.deepEqual(Object.keys(document).sort(), ['_id', 'expires', 'session'])
    assert.ok(document.expires instanceof Date)
    const { default: express } = await import('express')
    const { default: session } = await import('express-session')
    const { MongoStore: ConnectMongo } = await import('connect-mongo')
    const app = express()
    app.use(session({
      secret, resave: false, saveUninitialized: false, store: ConnectMongo.create({ client, dbName })
    }))
    app.get('/', (req, res) => { res.send(String(req.session.n = (req.session.n ?? 0) + 1)) })
    const server = createServer(app).listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.after(() => { server.closeAllConnections(); server.close() })
    const theirs = await fetch(`http://127.0.0.1:${server.address().port}/`, { headers: { cookie } })
    assert.equal(await theirs.text(), '2')
    assert.equal(await (await visit()).text(), '3')
    assert.equal(await collection.countDocuments(), 1)
  })

  await t.test('documents that hold no text are left alone', async () => {
    await collection.deleteMany()
    const visit = visitor(withSession(count, { secret, store, onError: quiet }))
    await visit()
    await collection.updateOne({}, { $set: { session: { n: 7 } } })
    assert.equal(await (await visit()).text(), '1')
    assert.equal(await collection.countDocuments({ session: { n: 7 } }), 1)
  })
})

test('what no session can hold is a 500, and what no store may return a 503', async () => {
  const told = []
  const onError = error => told.push(error.message)
  const cycle = {}
  cycle.itself = cycle
  const deep = JSON.parse('['.repeat(40_000) + ']'.repeat(40_000))
  for (const value of [1n, cycle, deep, { toJSON () { throw new Error('no') } }]) {
    const handle = withSession((request, session) => { session.data.a = value; return new Response() }, { secret, onError })
    assert.equal((await handle(new Request('http://a/'))).status, 500)
    assert.match(told.pop(), /^the session failed: /)
  }
  const odd = withSession((request, session) => { session.data['\ud800'] = 1; return new Response() }, { secret, onError })
  assert.equal((await odd(new Request('http://a/'))).status, 500)
  assert.match(told.pop(), /half of a surrogate pair/)

  const store = new OpenStore()
  const visit = visitor(withSession(count, { secret, store, onError }))
  await visit()
  for (const data of [{ cookie: {} }, undefined, Buffer.from('{}')]) {
    store.load = () => ({ data, expires: undefined })
    assert.equal((await visit()).status, 503)
    assert.match(told.pop(), /data is not a string/)
  }
  delete store.load
  const { load } = store
  store.load = id => ({ ...load.call(store, id), expires: null })
  assert.match(await (await visit()).text(), /2/)
})

test('settings of the wrong kind are refused', () => {
  const handle = () => new Response()
  for (const storeTimeout of [0, -1, NaN, Infinity, 2 ** 31, 'soon', null]) {
    assert.throws(() => withSession(handle, { secret, storeTimeout }), /storeTimeout/)
  }
  assert.throws(() => withSession(handle, { secret, onError: 5 }), /onError is not a function/)
  assert.throws(() => withSession(handle, { secret, store: {} }), /the store has no load/)
  for (const cookie of [() => ({}), 5, 'lax', true]) {
    assert.throws(() => withSession(handle, { secret, cookie }), /cookie: is not an option, but a group of options, such as cookie.path/)
  }
})
