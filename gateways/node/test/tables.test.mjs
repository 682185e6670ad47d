// What applications write, in tables: express-session and edge-session side by side.
import assert from 'node:assert/strict'
import { createSecretKey } from 'node:crypto'
import { test } from 'node:test'
import { ODD, SECRET, clock, memory, ours, theirs, world } from './rig.mjs'

const QUIET = { resave: false, saveUninitialized: false }
const OLD = 'an old secret of thirty-two bytes'

process.on('warning', () => {}) // of options that are not given

/** Both answer these steps in the same way. */
async function same (row, options, steps) {
  clock.now = Math.floor(Date.now() / 1000) * 1000
  const both = []
  for (const session of [theirs, ours]) both.push(await world(session, { ...QUIET, ...options }, memory))
  try {
    for (const step of steps) {
      clock.now += 1000
      const [expected, actual] = [await both[0].step(step), await both[1].step(step)]
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
      for (const cookie of [{}, { maxAge: 60000 }]) {
        await same(`${setting} = ${value}, ${JSON.stringify(cookie)}`, { cookie }, remember(setting, value))
      }
    }
  }
})
