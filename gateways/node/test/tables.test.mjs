// Typical inputs of applications, in tables: express-session and edge-session compared.
import assert from 'node:assert/strict'
import { createSecretKey } from 'node:crypto'
import { test } from 'node:test'
import cookieParser from 'cookie-parser'
import { ODD, SECRET, clock, explain, memory, ours, theirs, world } from './rig.mjs'

const QUIET = { resave: false, saveUninitialized: false }
const OLD = 'an old secret of thirty-two bytes'

/** Checks that both respond to these steps in the same way. */
async function same (row, options, steps, own) {
  clock.now = Math.floor(Date.now() / 1000) * 1000
  const both = []
  for (const session of [theirs, ours]) both.push(await world(session, { ...QUIET, ...options }, memory, own))
  try {
    for (const step of steps) {
      clock.now += 1000
      if (typeof step === 'function') {
        both.forEach(step)
        continue
      }
      const [expected, actual] = [await both[0].step(step), await both[1].step(step)]
      explain(expected, actual)
      assert.deepEqual(actual, expected, `${row}: ${JSON.stringify(step)}`)
    }
  } finally {
    for (const { close } of both) await close()
    clock.now = undefined
  }
}

const set = value => ['set', 'a', value]
const VISITS = [{ deeds: [set(1)] }, {}, { deeds: [set(2)] }, { path: '/app' }, { cookie: 'none', deeds: [set(3)] }]

test('options that say nothing, or say it in an unusual way', { timeout: 60_000 }, async () => {
  const bytes = new TextEncoder().encode(SECRET)
  const key = await crypto.subtle.importKey('raw', bytes, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign'])
  const table = {
    'expires: 5000': { cookie: { expires: 5000 } },
    'expires: 0': { cookie: { expires: 0 } },
    'expires: -1': { cookie: { expires: -1 } },
    'expires: false': { cookie: { expires: false } },
    'expires: ""': { cookie: { expires: '' } },
    'expires: 5000, maxAge: 9000': { cookie: { expires: 5000, maxAge: 9000 } },
    'maxAge: 9000, expires: 5000': { cookie: { maxAge: 9000, expires: 5000 } },
    'maxAge: 9000, expires: false': { cookie: { maxAge: 9000, expires: false } },
    'maxAge: 9000, expires: undefined': { cookie: { maxAge: 9000, expires: undefined } },
    'maxAge: false': { cookie: { maxAge: false } },
    'maxAge: ""': { cookie: { maxAge: '' } },
    'maxAge: undefined': { cookie: { maxAge: undefined } },
    'maxAge: a date': { cookie: { maxAge: ODD.date } },
    'sameSite: ""': { cookie: { sameSite: '' } },
    'sameSite: null': { cookie: { sameSite: null } },
    'sameSite: 0': { cookie: { sameSite: 0 } },
    'sameSite: "LAX"': { cookie: { sameSite: 'LAX' } },
    'path: ""': { cookie: { path: '' } },
    'path: null': { cookie: { path: null } },
    'path: undefined': { cookie: { path: undefined } },
    'path: false': { cookie: { path: false } },
    'domain: null': { cookie: { domain: null } },
    'domain: ""': { cookie: { domain: '' } },
    'httpOnly: undefined': { cookie: { httpOnly: undefined } },
    'httpOnly: null': { cookie: { httpOnly: null } },
    'httpOnly: 1': { cookie: { httpOnly: 1 } },
    'secure: ""': { cookie: { secure: '' } },
    'secure: undefined': { cookie: { secure: undefined } },
    'priority: ""': { cookie: { priority: '' } },
    'partitioned: null': { cookie: { partitioned: null } },
    'signed, and what nobody knows': { cookie: { signed: true, encode: String, other: 1 } },
    'inherited settings': { cookie: Object.create({ maxAge: 7000, sameSite: 'lax' }) },
    'all of a function\'s': { cookie: () => ({ path: undefined, expires: 5000, sameSite: '', httpOnly: undefined }) },
    'cookie: null': { cookie: null },
    'cookie: false': { cookie: false },
    'store: null': { store: null },
    'store: false': { store: false },
    'store: ""': { store: '' },
    'name: ""': { name: '' },
    'genid: null': { genid: null },
    'unset: ""': { unset: '' },
    'proxy: "yes"': { proxy: 'yes' },
    'resave: null': { resave: null },
    'resave: undefined': { resave: undefined, saveUninitialized: undefined },
    'secret: [a, undefined]': { secret: [SECRET, undefined] },
    'secret: [a, null]': { secret: [SECRET, null] },
    'secret: [a, old, undefined]': { secret: [SECRET, OLD, undefined] },
    'secret: a KeyObject': { secret: createSecretKey(bytes) },
    'secret: KeyObjects': { secret: [createSecretKey(bytes), createSecretKey(Buffer.from(OLD))] },
    'secret: a CryptoKey': { secret: key },
    'secret: CryptoKeys': { secret: [key, key] },
    'secret: bytes': { secret: bytes },
    'secret: a DataView': { secret: new DataView(bytes.buffer, 1, 31) },
    'secret: an ArrayBuffer': { secret: bytes.buffer }
  }
  for (const [row, options] of Object.entries(table)) {
    await same(row, options, VISITS)
    await same(`${row}, rolling`, { ...options, rolling: true, saveUninitialized: true }, VISITS)
  }
})

test('settings of the cookie that an application assigns', { timeout: 60_000 }, async () => {
  const remember = (setting, value) => [
    { deeds: [set(1), ['assign', setting, value]] },
    { cookie: 'none', deeds: [set(1)] },
    { deeds: [set(2), ['assign', setting, value]] },
    {},
    { deeds: [set(2)] },
    { deeds: [['assign', setting, value]] },
    { deeds: [set(3), ['assign', setting, value]] },
    { cookie: 'none', deeds: [['assign', setting, value], ['save']] },
    { deeds: [['regenerate'], ['assign', setting, value], set(4)] },
    { deeds: [['assign', setting, value], ['reload'], set(5)] },
    {}
  ]
  const NOTHING = ['false', 'none', 'null', 'empty', 'zero']
  const table = {
    expires: [...NOTHING, 'number', 'negative', 'date'],
    maxAge: [...NOTHING, 'number', 'negative', 'date'],
    originalMaxAge: [...NOTHING, 'number'],
    path: NOTHING,
    domain: NOTHING,
    httpOnly: [...NOTHING, 'text'],
    secure: [...NOTHING],
    sameSite: [...NOTHING, 'true'],
    priority: NOTHING,
    partitioned: [...NOTHING, 'text']
  }
  for (const [setting, values] of Object.entries(table)) {
    for (const value of values) {
      // Lifetime cases also set a lifetime.
      for (const cookie of /expires|age/i.test(setting) ? [{}, { maxAge: 60000 }] : [{}]) {
        await same(`${setting} = ${value}, ${JSON.stringify(cookie)}`, { cookie }, remember(setting, value))
      }
    }
  }
})

test('a damaged stored session is the error handler\'s business', { timeout: 60_000 }, async () => {
  const table = ['{"n":7}', '{"cookie":null}', '{"cookie":7}', '{"cookie":"x"}', '7', '"text"', '[]', '{"cookie":{}}',
    '{"cookie":{"expires":"no date"}}', '{"cookie":{"expires":"no date","originalMaxAge":7000}}', '{"cookie":{"expires":7}}', 'no JSON']
  const damage = text => ({ store: { sessions } }) => { for (const id in sessions) sessions[id] = text }
  for (const text of table) await same(text, {}, [{ deeds: [set(1)] }, damage(text), {}, { deeds: [set(2)] }, {}])
  // express-session fails while sending the headers, and so never sends those of the error handler.
  for (const lifetime of ['"soon"', '{}', 'true']) {
    const app = await world(ours, QUIET, memory)
    await app.step({ deeds: [set(1)] })
    damage(`{"cookie":{"originalMaxAge":${lifetime}}}`)(app)
    assert.deepEqual((await app.step({})).errors, ['TypeError: maxAge must be a number or Date'])
    await app.close()
  }
})

test('a stored session with members in an unusual order, or with such that are dropped', { timeout: 60_000 }, async () => {
  const cookie = '"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}'
  const table = [`{${cookie}}`, `{"a":2,${cookie},"b":1}`, `{"7":1,${cookie}}`, `{ ${cookie}, "a": 2 }`, `{${cookie},"save":1,"a":2}`,
    `{${cookie},"__proto__":{"b":1},"a":2}`, '{"cookie":{"path":"/}","httpOnly":true},"a":2}', `{${cookie},"cookie":{"httpOnly":false},"a":2}`]
  const replace = text => ({ store: { sessions } }) => { for (const id in sessions) sessions[id] = text }
  for (const text of table) {
    for (const options of [{}, { rolling: true, cookie: { maxAge: 60000 } }]) {
      const become = ['become', 'assigned']
      await same(text, options, [{ deeds: [set(1)] }, replace(text), {}, replace(text), { deeds: [become] }, { deeds: [set(2)] }, {}])
    }
  }
})

test('a date that is none reaches the error handler', { timeout: 60_000 }, async () => {
  for (const setting of ['expires', 'maxAge', 'originalMaxAge']) {
    clock.now = Date.now()
    const own = { deeds: [set(1), ['assign', setting, 'no date']] }
    const errors = []
    for (const session of [theirs, ours]) {
      const { step, close } = await world(session, QUIET, memory)
      await step({ deeds: [set(0)] })
      errors.push((await step(own)).errors, (await step({ ...own, cookie: 'none' })).errors)
      await close()
    }
    clock.now = undefined
    assert.deepEqual(errors, Array(4).fill(['TypeError: option expires is invalid']))
  }
})

test('what only cookie-parser has', { timeout: 60_000 }, async () => {
  let forge = () => {}
  const place = (req, res, next) => { forge(req); next() }
  const table = {
    'a signed cookie': (req, value) => { req.signedCookies['connect.sid'] = value.slice(2).split('.')[0] },
    'one that nobody knows': req => { req.signedCookies['connect.sid'] = 'nobody' },
    'an empty one': req => { req.signedCookies['connect.sid'] = '' },
    'a cookie': (req, value) => { req.cookies['connect.sid'] = value },
    'a forged one': (req, value) => { req.cookies['connect.sid'] = value.slice(0, -1) },
    'one that is not signed': req => { req.cookies['connect.sid'] = 'text' },
    'both': (req, value) => { req.signedCookies['connect.sid'] = 'nobody'; req.cookies['connect.sid'] = value }
  }
  for (const [row, put] of Object.entries(table)) {
    for (const cookie of ['none', 'cut', 'last']) {
      const jar = {}
      const take = (req, key) => { jar[key] = req.sessionID }
      const values = new Map()
      forge = req => {
        const value = req.headers['x-value']
        if (value) put(req, decodeURIComponent(value))
      }
      clock.now = Date.now()
      const seen = []
      for (const session of [theirs, ours]) {
        const app = await world(session, QUIET, memory, { before: [cookieParser(SECRET), place] })
        await app.step({ deeds: [set(1)] })
        const value = app.jar.at(-1).split('=')[1]
        seen.push([
          await app.step({ cookie, headers: { 'x-value': value } }),
          await app.step({ cookie, headers: { 'x-value': value }, deeds: [set(2)] }),
          await app.step({ cookie, headers: { 'x-value': value } })
        ])
        await app.close()
      }
      clock.now = undefined
      assert.deepEqual(seen[1], seen[0], `${row}, ${cookie}`)
    }
  }
})

test('an identifier that an application assigns to the request', { timeout: 60_000 }, async () => {
  let number = 0
  const assign = () => ['become', `assigned${++number}`]
  const table = [{}, { resave: true }, { saveUninitialized: true }, { resave: true, saveUninitialized: true }, { rolling: true },
    { unset: 'destroy' }, { cookie: { maxAge: 60000, sameSite: 'lax' } }]
  for (const options of table) {
    for (const begin of [[], [set(1)]]) {
      await same(JSON.stringify([options, begin]), options, [
        { deeds: begin },
        { deeds: [assign()] },
        {},
        { deeds: [assign(), set(2)] },
        { deeds: [set(3), assign(), ['save']] },
        { cookie: 'none', deeds: [assign()] },
        { cookie: 'none', deeds: [set(4), assign()] },
        { cookie: 'none', deeds: [set(5), ['cookie', 'path', '/app'], assign()] },
        { cookie: 'none', deeds: [set(6)] },
        { deeds: [set(6), ['become', 7]] },
        { deeds: [set(7), assign(), ['destroy']] },
        { deeds: [set(8)] },
        { deeds: [assign(), ['unset']] },
        {}
      ])
    }
  }
})

test('a session that the store has made for the request', { timeout: 60_000 }, async () => {
  const own = {
    create: (req, text) => { req.sessionStore.createSession(req, JSON.parse(text)) },
    load: (req, id) => new Promise((resolve, reject) => req.sessionStore.load(id, (error, session) => {
      req.session = session
      return error ? reject(error) : resolve()
    }))
  }
  const create = ['create', '{"cookie":{"originalMaxAge":7000,"sameSite":"lax"},"made":true}']
  for (const options of [{}, { resave: true, saveUninitialized: true }, { rolling: true, cookie: { maxAge: 60000 } }]) {
    await same(JSON.stringify(options), options, [
      { deeds: [create] },
      { cookie: 'none', deeds: [['become', 'kept1'], create] },
      { deeds: [['become', 'kept2'], create, ['save']] },
      { deeds: [['become', 'kept3'], create, ['become', 'kept4']] },
      { cookie: 'none', deeds: [set(1)] },
      { deeds: [create, ['become', 'kept5'], ['reload']] },
      { deeds: [['load', 'kept2']] },
      { deeds: [['load', 'kept2'], set(2), ['become', 'kept2']] },
      {}
    ], own)
  }
})

test('a Proxy around the session', { timeout: 60_000 }, async () => {
  const greet = req => {
    req.session = new Proxy(req.session, {
      get: (target, key) => key === 'greeting' ? 'hello' : Reflect.get(target, key),
      set: (target, key, value) => Reflect.set(target, key, value)
    })
  }
  const own = {
    greet,
    look: req => { assert.deepEqual([req.session.id, req.session.req, req.session.greeting], [req.sessionID, req, 'hello']) }
  }
  for (const options of [{}, { resave: true, saveUninitialized: true }, { rolling: true, cookie: { maxAge: 60000 } }]) {
    const steps = [['save'], ['touch'], ['reload'], ['regenerate'], ['destroy'], ['maxAge', 9000], ['remove', 'a']]
      .flatMap(deed => [{ deeds: [['greet'], ['look'], set(1)] }, { deeds: [['greet'], deed] }, { deeds: [set(2), ['greet'], deed] }])
    await same(JSON.stringify(options), options, steps, own)
  }
})

test('what is written after the end', { timeout: 60_000 }, async () => {
  for (const deeds of [[set(1)], [set(2), ['save']]]) await same('late', {}, [{ deeds, answer: 'late' }, { deeds, answer: 'late' }])
})

test('Cookie.prototype.serialize', () => {
  const table = [{}, { maxAge: 60000, sameSite: 'lax', secure: true }, { path: '', domain: 'a.example', httpOnly: false },
    { expires: new Date(2e12), priority: 'high', partitioned: true, sameSite: true }]
  for (const settings of table) {
    clock.now = 1e12
    const [expected, actual] = [theirs, ours].map(session => new session.Cookie(settings).serialize('a', 's:b/é'))
    clock.now = undefined
    assert.equal(actual, expected)
  }
  for (const session of [theirs, ours]) {
    assert.throws(() => new session.Cookie({ expires: new Date(NaN) }).serialize('a', 'b'), { message: 'option expires is invalid' })
    assert.throws(() => new session.Cookie().serialize('a b', 'b'), { message: 'argument name is invalid' })
  }
})
