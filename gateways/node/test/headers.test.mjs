// Applications behind the gateway, with `req.session` from its headers.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import express from 'express'
import { Passport } from 'passport'
import headerSessions, { headerSessions as named } from '../src/headers.cjs'

const require = createRequire(import.meta.url)
const flash = require('connect-flash')

/** An application, and its response to the headers of a request. */
async function application (t, build) {
  const app = express()
  app.use(headerSessions())
  build(app)
  app.use((error, req, res, next) => { res.status(500).send(error.message) })
  const server = http.createServer(app).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => { server.closeAllConnections(); server.close() })
  return async (path, data, { id = 'an-id', ...options } = {}) => {
    const headers = data === undefined ? {} : { 'Edge-Session': data, 'Edge-Session-Id': id }
    const response = await fetch(`http://127.0.0.1:${server.address().port}${path}`, { headers, ...options })
    const header = name => response.headers.get(name) ?? undefined
    return {
      status: response.status,
      body: await response.text(),
      session: header('edge-session'),
      action: header('edge-session-action')
    }
  }
}

test('a change is answered by the whole session, and nothing by nothing', async t => {
  const ask = await application(t, app => {
    app.get('/count', (req, res) => {
      req.session.views = (req.session.views ?? 0) + 1
      res.send(`${req.session.views} ${req.sessionID} ${req.session.id}`)
    })
    app.get('/deep', (req, res) => { req.session.cart.apples.push('é\u2028😀'); res.end() })
    app.get('/delete', (req, res) => { delete req.session.cart; res.redirect('/') })
    app.get('/read', (req, res) => res.json(req.session))
    app.get('/stream', async (req, res) => {
      req.session.a = 1
      res.write('begun')
      req.session.a = 2
      res.end()
    })
    app.get('/null', (req, res) => { req.session.a = 1; req.session = null; res.end() })
    app.get('/circle', (req, res) => { req.session.self = req.session; res.end('unreachable') })
  })
  const nowhere = await ask('/count', '{}', { id: '' })
  assert.deepEqual([nowhere.status, nowhere.session], [500, undefined])
  assert.match(nowhere.body, /no session for this request.*outside cookie.path/)
  assert.equal((await ask('/read', '{"b":1}', { id: '' })).status, 200)
  assert.equal((await ask('/count', '{"views":1}')).body, '2 an-id an-id')
  const deep = await ask('/deep', '{"cart":{"apples":[]}}')
  assert.equal(deep.session, '{"cart":{"apples":["\\u00e9\\u2028\\ud83d\\ude00"]}}')
  assert.equal((await ask('/delete', '{"cart":1,"b":2}', { redirect: 'manual' })).session, '{"b":2}')
  const read = await ask('/read', '{"b":2,"a":{"c":null}}')
  assert.deepEqual([read.body, read.session], ['{"b":2,"a":{"c":null}}', undefined])
  assert.equal((await ask('/stream', '{}')).session, '{"a":1}')
  assert.equal((await ask('/null', '{}')).session, undefined)
  const circle = await ask('/circle', '{}')
  assert.deepEqual([circle.status, circle.session], [500, undefined])
})

test('what would stand in the place of a method or a prototype is no data', async t => {
  const ask = await application(t, app => {
    app.get('/', (req, res) => {
      req.session.save(() => res.send(`${req.session.polluted} ${Object.getPrototypeOf(req.session).constructor.name}`))
    })
  })
  const answer = await ask('/', '{"save":1,"__proto__":{"polluted":true},"req":1,"cookie":1,"toString":1}')
  assert.equal(answer.body, 'undefined Session')
})

test('regenerate, destroy, reload and save do what they do in express-session', async t => {
  const called = (session, method) => new Promise((resolve, reject) =>
    session[method](error => error ? reject(error) : resolve()))
  const ask = await application(t, app => {
    app.get('/regenerate', async (req, res) => {
      const old = req.session
      await called(req.session, 'regenerate')
      assert.notEqual(req.session, old)
      assert.equal(req.session.a, undefined)
      req.session.user = 'ada'
      await called(req.session, 'save')
      res.end()
    })
    app.get('/destroy', async (req, res) => { await called(req.session, 'destroy'); res.send(typeof req.session) })
    app.get('/promises', async (req, res) => {
      req.session.a = 2
      await req.session.reload()
      const { a } = req.session
      await req.session.regenerate()
      await req.session.destroy()
      res.send(`${a}`)
    })
    app.get('/touch', (req, res) => { res.send(`${req.session.touch() === req.session && req.session.resetMaxAge() === req.session}`) })
  })
  const renewed = await ask('/regenerate', '{"a":1}')
  assert.deepEqual([renewed.action, renewed.session], ['regenerate', '{"user":"ada"}'])
  const ended = await ask('/destroy', '{"a":1}')
  assert.deepEqual([ended.body, ended.action, ended.session], ['undefined', 'destroy', undefined])
  const promised = await ask('/promises', '{"a":1}')
  assert.deepEqual([promised.body, promised.action], ['1', 'destroy'])
  assert.deepEqual((await ask('/touch', '{}')).body, 'true')
})

test('reload has what was saved, and nothing that was ended', async t => {
  const called = (session, method) => new Promise(resolve => session[method](error => resolve(error?.message)))
  const ask = await application(t, app => {
    app.get('/saved', async (req, res) => {
      req.session.a++
      await called(req.session, 'save')
      req.session.a++
      await called(req.session, 'reload')
      res.send(`${req.session.a}`)
    })
    app.get('/:end', async (req, res) => {
      const { session } = req
      await called(session, req.params.end)
      res.send(`${await called(session, 'reload')} ${req.session?.a}`)
    })
  })
  const saved = await ask('/saved', '{"a":1}')
  assert.deepEqual([saved.body, saved.session], ['2', '{"a":2}'])
  const regenerated = await ask('/regenerate', '{"a":1}')
  assert.deepEqual([regenerated.body, regenerated.action], ['failed to load session undefined', 'regenerate'])
  const destroyed = await ask('/destroy', '{"a":1}')
  assert.deepEqual([destroyed.body, destroyed.action, destroyed.session],
    ['failed to load session undefined', 'destroy', undefined])
})

test('what begins after the end is another session', async t => {
  const ask = await application(t, app => {
    app.get('/again', (req, res, next) => req.session.destroy(next), headerSessions(), (req, res) => {
      assert.deepEqual(Object.keys(req.session), [])
      if (req.query.b) req.session.b = req.query.b
      res.end()
    })
    app.get('/put', (req, res) => req.session.destroy(() => { req.session = { b: 1 }; res.end() }))
  })
  const empty = await ask('/again', '{"a":1}')
  assert.deepEqual([empty.status, empty.action, empty.session], [200, 'destroy', undefined])
  const filled = await ask('/again?b=2', '{"a":1}')
  assert.deepEqual([filled.action, filled.session], ['regenerate', '{"b":"2"}'])
  const put = await ask('/put', '{"a":1}')
  assert.deepEqual([put.action, put.session], ['regenerate', '{"b":1}'])
})

test('numbers that JavaScript cannot hold pass through as they came', async t => {
  const ask = await application(t, app => app.get('/', (req, res) => { req.session.s = 1; res.end() }))
  const data = '{"k":1.0,"big":9007199254740993,"deep":{"a":[1e2, "}:,\\\""]},"\\u0062":2.50}'
  assert.equal((await ask('/', data)).session,
    '{"k":1.0,"big":9007199254740993,"deep":{"a":[1e2, "}:,\\\""]},"b":2.50,"s":1}')
})

test('an answer that could not be made changes the session once it can be made', async t => {
  const ask = await application(t, app => {
    app.get('/mended', (req, res) => {
      req.session.admin = true
      req.session.bad = 10n
      try { res.send('never') } catch { delete req.session.bad; res.send('caught') }
    })
    app.get('/left', (req, res) => { req.session.admin = true; req.session.bad = 10n; res.end() })
  })
  const mended = await ask('/mended', '{}')
  assert.deepEqual([mended.status, mended.body, mended.session], [200, 'caught', '{"admin":true}'])
  const left = await ask('/left', '{}')
  assert.deepEqual([left.status, left.session, left.action], [500, undefined, undefined])
})

test('a request that did not come through the gateway is an error, without a word of its session', async t => {
  const ask = await application(t, app => app.get('/', (req, res) => res.end('reached')))
  const none = await ask('/')
  assert.equal(none.status, 500)
  assert.match(none.body, /did not come through the gateway/)
  for (const text of ['', 'null', '[]', '"hunter2"', '{"hunter2":', '{}, {}']) {
    const answer = await ask('/', text)
    assert.equal(answer.status, 500, text)
    assert.match(answer.body, /is not a JSON object/)
    assert.doesNotMatch(answer.body, /hunter2/)
  }
})

test('passport logs in and out, and flashes', async t => {
  const passport = new Passport()
  passport.use('name', new (class {
    authenticate (req) { this.success({ name: req.query.name }) }
  })())
  passport.serializeUser((user, done) => done(null, user.name))
  passport.deserializeUser((name, done) => done(null, { name }))
  const ask = await application(t, app => {
    app.use(passport.initialize(), passport.session(), flash())
    app.get('/login', (req, res, next) => { req.flash('info', 'hello'); next() },
      passport.authenticate('name', { keepSessionInfo: true }), (req, res) => res.end())
    app.get('/', (req, res) => res.send(`${req.user?.name} ${req.flash('info')}`))
    app.get('/logout', (req, res, next) => req.logout(error => error ? next(error) : res.end()))
  })
  const login = await ask('/login?name=ada', '{"cart":1}')
  assert.equal(login.action, 'regenerate')
  assert.deepEqual(JSON.parse(login.session), { cart: 1, flash: { info: ['hello'] }, passport: { user: 'ada' } })
  const home = await ask('/', login.session)
  assert.equal(home.body, 'ada hello')
  assert.deepEqual(JSON.parse(home.session), { cart: 1, flash: {}, passport: { user: 'ada' } })
  const logout = await ask('/logout', home.session)
  assert.deepEqual([logout.action, logout.session], ['regenerate', '{}'])
})

test('it is there by require, by import and by its name', () => {
  assert.equal(named, headerSessions)
  assert.equal(require('../src/headers.cjs'), headerSessions)
})
