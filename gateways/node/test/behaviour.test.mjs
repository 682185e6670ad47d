// What the differential test cannot cover: failures, the order of events, the component's own
// options.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import express from 'express'
import { Engine, SessionError } from '../src/engine.js'
import { withSession } from '../src/fetch/index.js'
import { modules } from '../src/modules.js'
import { SECRET, request } from './rig.mjs'

const require = createRequire(import.meta.url)
const session = require('../index.cjs')
const { MemoryStore, OptionsError } = session
const QUIET = { secret: SECRET, resave: false, saveUninitialized: false }

// An application with one handler; `errors` collects what reached its error handler.
async function serve (t, options, handler) {
  const app = express()
  const errors = []
  app.use(session({ ...QUIET, ...options }))
  app.use(handler)
  app.use((error, req, res, next) => {
    errors.push(error)
    if (res.headersSent) return next(error)
    res.status(error.status ?? 500).send('failed')
  })
  const server = http.createServer(app).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => { server.closeAllConnections(); server.close() })
  let cookie
  return {
    errors,
    server,
    async visit (path = '/', headers = {}) {
      const response = await request(server, { path, headers: { ...(cookie && { cookie }), ...headers } })
      cookie = response.headers['set-cookie']?.[0].split(';')[0] ?? cookie
      return response
    }
  }
}

const count = (req, res) => {
  req.session.n = (req.session.n ?? 0) + 1
  res.send(String(req.session.n))
}

// A client may receive the whole response before the server has noticed its end.
async function until (isSo) {
  while (!isSo()) await new Promise(resolve => setImmediate(resolve))
}

class SlowStore extends MemoryStore {
  set (id, value, callback) {
    const text = JSON.stringify(value)
    setTimeout(() => { this.sessions[id] = text; callback() }, 100)
  }
}

test('a store that fails to load is the error handler\'s business', async t => {
  const store = new MemoryStore()
  const failure = new Error('the store is down')
  const { visit, errors } = await serve(t, { store }, count)
  await visit()
  store.get = (id, callback) => callback(failure)
  assert.equal((await visit()).status, 500)
  assert.deepEqual(errors, [failure])
  store.get = (id, callback) => callback(Object.assign(new Error(), { code: 'ENOENT' }))
  assert.equal((await visit()).body, '1')
})

test('a store that fails to save is the error handler\'s business, too', async t => {
  const store = new MemoryStore()
  const failure = new Error('the store is full')
  store.set = (id, value, callback) => callback(failure)
  const { visit, errors } = await serve(t, { store }, count)
  assert.equal((await visit()).body, '1')
  await wait(20)
  assert.deepEqual(errors, [failure])
})

test('the response ends when the session is stored', async t => {
  const { server } = await serve(t, { store: new SlowStore() }, (req, res) => {
    req.session.a = 1
    res.setHeader('Content-Length', 5)
    res.end('hello')
  })
  const began = Date.now()
  const times = {}
  const call = http.get({ host: '127.0.0.1', port: server.address().port, agent: false })
  const [response] = await once(call, 'response')
  times.headers = Date.now() - began
  assert.equal(response.headers['set-cookie'].length, 1)
  let body = ''
  for await (const part of response) body += part
  times.end = Date.now() - began
  assert.equal(body, 'hello')
  assert.ok(times.end >= 95, JSON.stringify(times))
})

test('what follows a redirect sees what was saved', async t => {
  const { visit } = await serve(t, { store: new SlowStore() }, (req, res) => {
    if (req.path === '/') return res.send(req.session.user ?? 'nobody')
    req.session.user = 'zoe'
    res.redirect('/')
  })
  assert.equal((await visit('/login')).status, 302)
  assert.equal((await visit('/')).body, 'zoe')
})

test('nothing is sent before the session is stored, and to the application it is over', { timeout: 30_000 }, async t => {
  const store = new MemoryStore()
  const seen = []
  const { visit, server } = await serve(t, { store }, (req, res) => {
    res.on('close', () => seen.push('sent'))
    req.session.n = 1
    res.send('once')
    assert.throws(() => res.send('twice'), { code: 'ERR_HTTP_HEADERS_SENT' })
    seen.push('over')
  })
  server.on('connection', socket => {
    const { _writev: writev, _write: write } = socket
    socket._writev = function (...args) { seen.push('bytes'); return writev.apply(this, args) }
    socket._write = function (...args) { seen.push('bytes'); return write.apply(this, args) }
  })
  store.set = (id, session, callback) => setTimeout(() => { seen.push('stored'); callback() }, 20)
  assert.equal((await visit()).body, 'once')
  await until(() => seen.includes('sent'))
  assert.deepEqual(seen, ['over', 'stored', 'bytes', 'sent'])
})

test('what cannot be sent fails its request alone', async t => {
  const { visit, errors } = await serve(t, { store: new SlowStore() }, (req, res) => {
    if (req.path !== '/none') req.session.n = 1
    if (req.path === '/status') res.statusCode = 1000
    res.end(req.path === '/good' ? 'good' : 7)
  })
  assert.equal((await visit('/none')).body, 'failed')
  assert.equal((await visit('/status')).body, 'failed')
  await assert.rejects(visit('/stored'), { code: 'ECONNRESET' })
  assert.deepEqual(errors.map(({ code }) => code),
    ['ERR_INVALID_ARG_TYPE', 'ERR_HTTP_INVALID_STATUS_CODE', 'ERR_INVALID_ARG_TYPE'])
  assert.equal((await visit('/good')).body, 'good')
})

test('a store that calls back twice does no harm', async t => {
  const store = new MemoryStore()
  const { visit } = await serve(t, { store }, count)
  const twice = (id, value, callback) => { callback(); callback() }
  for (const set of [twice, (...args) => setImmediate(twice, ...args)]) {
    store.set = set
    assert.equal((await visit()).body, '1')
  }
})

test('a store that throws fails its request', async t => {
  const store = new MemoryStore()
  const { visit, errors } = await serve(t, { store }, count)
  store.set = () => { throw new Error('the store is a ruin') }
  assert.deepEqual([(await visit()).status, errors.length], [500, 1])
  delete store.set
  await visit()
  store.get = () => { throw new Error('the store is a ruin') }
  assert.deepEqual([(await visit()).status, errors.length], [500, 2])
})

test('a store that fails to store does not cut the response', { timeout: 30_000 }, async t => {
  const store = new MemoryStore()
  const large = 'x'.repeat(20_000_000)
  const { visit, errors } = await serve(t, { store }, (req, res) => {
    req.session.n = 1
    res.send(large)
  })
  store.set = (id, value, callback) => setImmediate(callback, new Error('the store is full'))
  assert.equal((await visit()).body.length, large.length)
  await until(() => errors.length > 0)
  assert.deepEqual(errors.map(({ message }) => message), ['the store is full'])
})

test('an answer that does not wait for the session is sent', async t => {
  const store = new MemoryStore()
  const app = express()
  app.use((req, res, next) => {
    if (req.headers.cookie) setImmediate(() => res.status(503).send('too late'))
    next()
  })
  app.use(session({ ...QUIET, store, unset: 'destroy' }), count)
  const server = http.createServer(app).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => { server.closeAllConnections(); server.close() })
  const first = await request(server, {})
  let loaded
  const loading = new Promise(resolve => { loaded = resolve })
  store.get = (id, callback) => setTimeout(() => { callback(); loaded() }, 50)
  const late = await request(server, { headers: { cookie: first.headers['set-cookie'][0].split(';')[0] } })
  assert.deepEqual([late.status, late.body], [503, 'too late'])
  await loading
})

test('a part that is written early takes the cookie along, and later changes are stored', async t => {
  const store = new MemoryStore()
  const { visit } = await serve(t, { store }, (req, res) => {
    req.session.early = true
    res.write('one ')
    setTimeout(() => { req.session.late = true; res.end('two') }, 10)
  })
  const response = await visit()
  assert.equal(response.body, 'one two')
  assert.equal(response.headers['set-cookie'].length, 1)
  const { early, late } = JSON.parse(Object.values(store.sessions)[0])
  assert.deepEqual({ early, late }, { early: true, late: true })
})

test('a session that cannot be stored fails the request, and nothing is sent or stored', async t => {
  const store = new MemoryStore()
  const { visit, errors } = await serve(t, { store, maxSessionBytes: 200 }, (req, res) => {
    req.session.value = { '/large': 'x'.repeat(300), '/bigint': 1n }[req.path]
    res.send('never')
  })
  for (const path of ['/large', '/bigint']) {
    const response = await visit(path)
    assert.equal(response.status, 500)
    assert.equal(response.body, 'failed')
    assert.equal(response.headers['set-cookie'], undefined)
  }
  assert.deepEqual(store.sessions, Object.create(null))
  assert.equal(errors[0].code, 'ERR_SESSION_TOO_LARGE')
  assert.match(errors[1].message, /BigInt/)
})

test('while the store is disconnected there are no sessions', async t => {
  const store = new MemoryStore()
  const { visit } = await serve(t, { store }, (req, res) => { res.send(String(req.session !== undefined)) })
  store.emit('disconnect')
  assert.equal((await visit()).body, 'false')
  store.emit('connect')
  assert.equal((await visit()).body, 'true')
})

test('a document that is no session is left alone by the safe preset', async t => {
  const store = new MemoryStore()
  const { visit } = await serve(t, { store, preset: 'safe' }, count)
  await visit()
  const [id] = Object.keys(store.sessions)
  store.sessions[id] = '{"n":7}'
  assert.equal((await visit()).body, '1')
  assert.equal(store.sessions[id], '{"n":7}')
})

test('the application makes the identifiers, where it wants to', async t => {
  let number = 0
  const ids = []
  const genid = req => `${req.path} ${++number}`
  const store = new MemoryStore()
  const { visit } = await serve(t, { genid, store }, (req, res) => {
    ids.push(req.sessionID)
    req.session.n = (req.session.n ?? 0) + 1
    if (req.session.n < 3) return res.send(`${req.session.n}`)
    req.session.regenerate(() => {
      req.session.n = 7
      ids.push(req.sessionID, req.session.id)
      res.send('anew')
    })
  })
  for (let n = 0; n < 3; n++) await visit()
  assert.deepEqual(ids, ['/ 1', '/ 1', '/ 1', '/ 2', '/ 2'])
  assert.deepEqual(Object.keys(store.sessions), ['/ 2'])
})

test('methods that get no callback give a promise', async t => {
  const store = new MemoryStore()
  const { visit } = await serve(t, { store }, async (req, res) => {
    const { session } = req
    session.n = 1
    assert.equal(session.save(() => {}), session)
    await session.save()
    assert.equal(JSON.parse(store.sessions[req.sessionID]).n, 1)
    session.n = 2
    await session.reload()
    assert.equal(req.session.n, 1)
    await req.session.regenerate()
    assert.notEqual(req.sessionID, session.id)
    const { session: next } = req
    await next.save()
    await next.destroy()
    assert.deepEqual([req.session, Object.keys(store.sessions)], [undefined, []])
    await assert.rejects(next.reload(), { message: 'failed to load session' })
    res.send('done')
  })
  assert.equal((await visit()).body, 'done')
})

test('who does not wait for a promise is not told, and nothing else is harmed', async t => {
  const store = new MemoryStore()
  const fail = (...args) => setImmediate(args.at(-1), new Error('down'))
  Object.assign(store, { set: fail, destroy: fail })
  const unhandled = []
  const listener = error => unhandled.push(error)
  process.on('unhandledRejection', listener)
  t.after(() => process.off('unhandledRejection', listener))
  const { visit } = await serve(t, { store }, (req, res) => {
    req.session.save()
    req.session.reload()
    req.session.regenerate()
    req.session.destroy()
    setImmediate(() => setImmediate(() => res.send('done')))
  })
  assert.equal((await visit()).body, 'done')
  assert.deepEqual(unhandled, [])
})

test('each of two middlewares on one store begins sessions by its own options', async t => {
  const store = new MemoryStore()
  const app = express()
  const cookies = { a: { path: '/a', maxAge: 60000 }, b: { path: '/b', sameSite: 'lax' }, c: { path: '/c', httpOnly: false } }
  for (const [name, cookie] of Object.entries(cookies)) {
    app.use(`/${name}`, session({ ...QUIET, store, name, secret: name.repeat(32), cookie: name === 'c' ? () => cookie : cookie, genid: req => `${name}-${req.query.id}-${++number}` }))
  }
  let number = 0
  app.use(async (req, res) => {
    req.session.n = 1
    if (req.query.id === 'new') return res.send('new')
    await req.session.regenerate()
    req.session.n = 2
    res.send('anew')
  })
  const server = http.createServer(app).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => { server.closeAllConnections(); server.close() })
  for (const name of Object.keys(cookies)) {
    const sent = []
    for (const id of ['new', 'again']) {
      const [cookie] = (await request(server, { path: `/${name}?id=${id}` })).headers['set-cookie']
      assert.match(cookie, new RegExp(`^${name}=s%3A${name}-${id}-`))
      sent.push(cookie.replace(/^[^;]+/, '').replace(/Expires=[^;]+/, 'Expires'))
    }
    assert.equal(sent[1], sent[0])
  }
})

test('an identifier that is none fails its request', async t => {
  for (const id of ['', 7, undefined, '\ud800']) {
    const ids = [id, 'good', id]
    const { visit, errors } = await serve(t, { genid: () => ids.shift() }, (req, res) => {
      req.session.regenerate(() => res.send('regenerated'))
    })
    for (const place of ['at first', 'in the midst of a request']) {
      assert.equal((await visit()).status, 500, place)
    }
    assert.deepEqual(errors.map(({ message }) => message), Array(2).fill('genid must return a string'))
  }
})

for (const preset of ['express', 'safe']) {
  test(`a cookie's path covers what is below it, not what begins like it (${preset})`, async t => {
    const long = `/${'a'.repeat(1023)}`
    const table = [
      ['/app', ['/app', '/app/', '/app/x', '/app?x'], ['/', '/ap', '/apple', '/App', '/app%2fx']],
      ['/app/', ['/app/', '/app/x'], ['/app', '/apple']],
      ['/', ['/', '/app', '//', '/?app'], []],
      [long, [long, `${long}/x`], [`${long}b`, `/b${long.slice(1)}`]]
    ]
    for (const [path, inside, outside] of table) {
      for (const cookie of [{ path }, () => ({ path })]) {
        const { visit } = await serve(t, { preset, cookie }, (req, res) => { res.send(String(Boolean(req.session))) })
        for (const [paths, is] of [[inside, 'true'], [outside, 'false']]) {
          for (const path of paths) assert.equal((await visit(path)).body, is, `${cookie.path ?? 'made'} ${path.slice(0, 20)}`)
        }
      }
    }
  })
}

test('options that cannot be are refused', () => {
  assert.throws(() => session({ ...QUIET, genid: 'uuid' }), { message: 'genid option must be a function' })
  assert.throws(() => session({ ...QUIET, unset: 'x' }), { message: 'unset option must be "destroy" or "keep"' })
  assert.throws(() => session({ ...QUIET, secret: [] }), { message: /secret option array/ })
  assert.throws(() => session({ ...QUIET, secret: [undefined, SECRET] }), { message: /secret: is a list whose first/ })
  assert.throws(() => session({ ...QUIET, secret: [SECRET, 7] }), { message: /secret: is not a string, bytes/ })
  assert.throws(() => session({ ...QUIET, cookie: { expires: NaN } }), { message: /cookie.expires/ })
  assert.throws(() => session({ ...QUIET, cookie: { expires: 'soon' } }), { message: /cookie.expires/ })
  assert.throws(() => session({ ...QUIET, preset: 'safe', cookie: { maxAge: 9000, expires: 5000 } }), { message: /cookie.expires/ })
  assert.throws(() => session({ ...QUIET, cookie: { sameSite: 'x' }, name: 'a b' }), { message: /cookie.sameSite/ })
  assert.throws(() => session({ ...QUIET, cookie: { expires: new Date(NaN) } }), { message: /cookie.expires/ })
  for (const maxAge of [NaN, Infinity, 8.65e15, '1h']) {
    assert.throws(() => session({ ...QUIET, cookie: { maxAge } }), { message: /cookie.maxAge/ })
  }
  assert.throws(() => session({ ...QUIET, preset: 'safe', secret: 'short', cookie: { sameSite: 'none' } }),
    error => error.problems.map(({ name }) => name).join() === 'secret,cookie.sameSite' &&
      /allowWeakSecret/.test(error.message))
})

test('without a secret, the other options are checked at the start, too', () => {
  assert.throws(() => session({ ...QUIET, secret: undefined, cookie: { maxAge: '1h' }, name: 'a b' }),
    error => error instanceof OptionsError && error.problems.map(({ name }) => name).join() === 'cookie.maxAge,name')
})

test('the status and the message of a failure reach the error handler, and its log the reason', async t => {
  const { visit, errors } = await serve(t, { maxSessionBytes: 200 }, (req, res) => {
    if (req.path === '/large') req.session.a = 'x'.repeat(150)
    else if (req.path === '/huge') req.session.a = 'x'.repeat(250)
    else Object.assign(req.session, { n: 1 }).cookie.path = ';'
    res.send('never')
  })
  for (const path of ['/large', '/huge', '/path']) assert.equal((await visit(path)).status, 500)
  const code = ['ERR_SESSION_TOO_LARGE', 'ERR_SESSION_TOO_LARGE', 'ERR_SESSION_INVALID_CHANGE']
  assert.deepEqual(errors.map(error => error.code), code)
  for (const { message, status, reason, stack } of errors) {
    assert.deepEqual([message, status], ['The session could not be saved.', 500])
    assert.ok(stack.includes(message) && stack.includes(reason))
  }
  assert.match(errors[0].reason, /more than maxSessionBytes, 200$/)
})

test('a change follows a session that another gateway has renewed meanwhile', async t => {
  const store = new MemoryStore()
  const content = id => store.sessions[id] && { data: store.sessions[id] }
  const shared = {
    load: content,
    create: (id, { data }) => { store.sessions[id] = data; return true },
    replace: (id, { data }) => { store.sessions[id] = data; return true },
    touch: () => true,
    delete: id => delete store.sessions[id]
  }
  const renew = withSession((request, session) => { session.renew(); session.data.user = 'zoe'; return new Response() },
    { secret: SECRET, store: shared })
  let meanwhile = () => {}
  const { visit } = await serve(t, { store, preset: 'safe' }, async (req, res) => {
    await meanwhile(req.headers)
    count(req, res)
  })
  const first = await visit()
  const old = Object.keys(store.sessions)
  meanwhile = async ({ cookie }) => assert.equal((await renew(new Request('http://localhost/', { headers: { cookie } }))).status, 200)
  const second = await visit()
  assert.deepEqual([first.body, second.body, second.headers['set-cookie']], ['1', '2', undefined])
  assert.equal(store.sessions[old[0]], undefined)
  const renewed = Object.values(store.sessions).map(text => JSON.parse(text)).filter(({ user }) => user)
  assert.deepEqual(renewed.map(({ user, n }) => ({ user, n })), [{ user: 'zoe', n: 2 }])
})

test('a secret that is not set any more signs nothing', async t => {
  const { visit } = await serve(t, { secret: [SECRET, undefined] }, count)
  const { headers } = await visit()
  const forged = headers['set-cookie'][0].split(';')[0].replace(/.$/, '')
  assert.equal((await visit()).body, '2')
  assert.equal((await visit('/', { cookie: forged })).body, '1')
})

test('without a secret, cookie-parser\'s is used', async t => {
  const app = express()
  app.use((req, res, next) => { if (req.query.secret) req.secret = req.query.secret; next() })
  app.use(session({ ...QUIET, secret: undefined }))
  app.use(count)
  app.use((error, req, res, next) => { res.status(500).send(error.message) })
  const server = http.createServer(app).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => { server.closeAllConnections(); server.close() })
  assert.equal((await request(server, {})).body, 'secret option required for sessions')
  const { headers } = await request(server, { path: '/?secret=a' })
  const cookie = headers['set-cookie'][0].split(';')[0]
  assert.equal((await request(server, { path: '/?secret=a', headers: { cookie } })).body, '2')
  assert.equal((await request(server, { path: '/?secret=b', headers: { cookie } })).body, '1')
})

test('a session may begin anew after it was destroyed', async t => {
  const store = new MemoryStore()
  const { visit } = await serve(t, { store }, (req, res, next) => {
    if (req.path === '/') return count(req, res)
    req.session.destroy(() => {
      req.sessionStore.generate(req)
      req.session.anew = true
      res.send(req.sessionID)
    })
  })
  await visit()
  const { body: id } = await visit('/anew')
  assert.deepEqual(Object.keys(store.sessions), [id])
  assert.equal((await visit()).body, '1')
})

test('with node:http alone', async t => {
  const middleware = session(QUIET)
  const server = http.createServer((req, res) => middleware(req, res, () => {
    req.session.n = (req.session.n ?? 0) + 1
    res.end(String(req.session.n))
  })).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => { server.closeAllConnections(); server.close() })
  const { headers } = await request(server, { path: '/?a#b' })
  const cookie = headers['set-cookie'][0].split(';')[0]
  assert.equal((await request(server, { path: 'http://example.com/x', headers: { cookie } })).body, '2')
})

test('a request to the server itself has no session', async t => {
  for (const kind of ['express-session', '../index.cjs']) {
    const middleware = require(kind)(QUIET)
    const server = http.createServer((req, res) => middleware(req, res, () => res.end(String(Boolean(req.session)))))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.after(() => { server.closeAllConnections(); server.close() })
    assert.equal((await request(server, { method: 'OPTIONS', path: '*' })).body, 'false')
    assert.equal((await request(server, { method: 'OPTIONS', path: '/' })).body, 'true')
  }
})

test('the safe preset: nothing for visitors without data, logout clears the cookie', async t => {
  const store = new MemoryStore()
  const { visit } = await serve(t, { store, preset: 'safe', resave: undefined, saveUninitialized: undefined }, (req, res) => {
    if (req.path === '/out') return req.session.destroy(() => res.send('bye'))
    if (req.path === '/in') req.session.user = 'zoe'
    res.send(req.session.user ?? 'nobody')
  })
  assert.equal((await visit('/')).headers['set-cookie'], undefined)
  const { headers } = await visit('/in')
  assert.match(headers['set-cookie'][0], /^connect\.sid=s%3A[^;]+; Path=\/; HttpOnly; SameSite=Lax$/)
  assert.equal(headers['cache-control'], 'no-store')
  const out = await visit('/out')
  assert.match(out.headers['set-cookie'][0],
    /^connect\.sid=; Path=\/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; (Max-Age=0; )?HttpOnly; SameSite=Lax$/)
  assert.deepEqual(store.sessions, Object.create(null))
})

test('the safe preset: a stale cookie beside the session\'s does no harm', async t => {
  const store = new MemoryStore()
  const { visit } = await serve(t, { store, preset: 'safe' }, count)
  const cookies = []
  for (let n = 0; n < 2; n++) {
    const { headers } = await visit('/', { cookie: 'none=1' })
    cookies.push(headers['set-cookie'][0].split(';')[0])
  }
  store.destroy(decodeURIComponent(cookies[0]).slice('connect.sid=s:'.length).split('.')[0])
  assert.equal((await visit('/', { cookie: cookies.join('; ') })).body, '2')
})

for (const saves of [false, true]) {
  test(`the safe preset: parallel requests merge${saves ? ', those that save by themselves, too' : ''}`, async t => {
    const store = new MemoryStore()
    const { visit } = await serve(t, { store, preset: 'safe' }, async (req, res) => {
      const { set, after } = req.query
      if (set) {
        req.session[set] = Number(after)
        await wait(Number(after))
        if (saves) await new Promise(resolve => req.session.save(resolve))
      }
      if (req.path === '/out') await new Promise(resolve => req.session.destroy(resolve))
      const { cookie, ...data } = req.session ?? {}
      res.send(data)
    })
    await visit('/?set=begin&after=0')
    await Promise.all([visit('/?set=a&after=60'), visit('/?set=b&after=10'), visit('/?set=c&after=30')])
    assert.deepEqual(JSON.parse((await visit('/')).body), { begin: 0, b: 10, c: 30, a: 60 })
    // An ended session is not brought back.
    await Promise.all([visit('/?set=late&after=60'), wait(20).then(() => visit('/out'))])
    assert.deepEqual(store.sessions, Object.create(null))
  })
}

test('onStoreError: "anonymous" goes on without a session', async t => {
  const store = new MemoryStore()
  const { visit, errors } = await serve(t, { store, onStoreError: 'anonymous' }, count)
  await visit()
  store.get = (id, callback) => callback(new Error('down'))
  const response = await visit()
  assert.equal(response.body, '1')
  assert.equal(response.headers['set-cookie'], undefined)
  assert.deepEqual(errors, [])
})

test('a changed lifetime reaches this session only', async t => {
  const { visit } = await serve(t, { cookie: { maxAge: 60000 } }, (req, res) => {
    req.session.n = 1
    if (req.path === '/remember') req.session.cookie.maxAge = 3600000
    res.send(String(req.session.cookie.originalMaxAge))
  })
  assert.equal((await visit('/remember')).body, '3600000')
  assert.equal((await visit('/')).body, '3600000')
  assert.equal((await visit('/', { cookie: 'none=1' })).body, '60000')
})

test('a lifetime that is none fails the request before anything is sent or stored', async t => {
  const store = new MemoryStore()
  const { visit, errors } = await serve(t, { store }, (req, res) => {
    req.session.n = 1
    req.session.cookie.maxAge = Number(req.path.slice(1))
    res.send('hello')
  })
  for (const maxAge of ['NaN', 'Infinity', '8.65e15']) assert.equal((await visit(`/${maxAge}`)).status, 500)
  assert.deepEqual(errors.map(String), Array(3).fill('TypeError: option expires is invalid'))
  assert.deepEqual(Object.keys(store.sessions), [])
})

test('MemoryStore warns in production', () => {
  const script = 'require(\'edge-session\')({ secret: \'a\', resave: false, saveUninitialized: false })'
  const stdio = ['ignore', 'pipe', 'pipe']
  const cwd = new URL('..', import.meta.url)
  const env = { ...process.env, NODE_ENV: 'production' }
  const said = execFileSync(process.execPath, ['-e', `console.warn = console.log; ${script}`], { cwd, env, stdio, encoding: 'utf8' })
  assert.match(said, /not\ndesigned for a production environment/)
})

test('a component that failed is replaced, one that refused is not', () => {
  let made = 0
  const engine = new Engine({ preset: 'express', secret: SECRET }, name => {
    if (name === 'session.core.wasm') made++
    return modules()[name]
  })
  const request = { cookies: new Uint8Array(), path: '/', tls: false, secure: false }
  const { visit } = engine.begin(request).val
  const altered = { ...visit, state: { bits: visit.state.bits ^ (1n << 40n) } }
  assert.throws(() => engine.finish(altered, undefined, { action: 'keep', data: { tag: 'nothing' }, cookie: [] }), error =>
    error instanceof SessionError && error.code === 'ERR_SESSION_MISUSE' && error.status === 500 && /contract/.test(error.reason))
  assert.equal(made, 1)
  assert.throws(() => engine.begin({ path: '/' }), TypeError)
  assert.equal(made, 2)
  assert.equal(engine.begin(request).tag, 'ready')
})
