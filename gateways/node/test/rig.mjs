// Two equal applications, one on express-session and one on edge-session, whose observable results
// are compared. The clock is stopped unless a step moves it.
import { createHmac } from 'node:crypto'
import http from 'node:http'
import { createRequire } from 'node:module'
import express from 'express'

process.noDeprecation = true // about missing options

const require = createRequire(import.meta.url)
export const theirs = require('express-session')
export const ours = require('../index.cjs')

const RealDate = Date
export const clock = { now: undefined }
globalThis.Date = class Date extends RealDate {
  constructor (...args) {
    if (args.length === 0) super(Date.now())
    else super(...args)
  }

  static now () { return clock.now ?? RealDate.now() }
}

/** Values that JSON cannot represent, for `['assign', setting, name]`. */
export const ODD = {
  false: false,
  true: true,
  none: undefined,
  null: null,
  empty: '',
  zero: 0,
  number: 5000,
  negative: -1,
  text: 'soon',
  date: new Date(2e12),
  'no date': new Date(NaN)
}

export const SECRET = 'keyboard cat of thirty-two bytes'

const called = (object, method) => new Promise((resolve, reject) =>
  object[method](error => error ? reject(error) : resolve()))

// The application's operations on its session.
async function perform (req, deeds, own, note) {
  for (const [deed, key, value] of deeds) {
    note(req.session?.id)
    switch (deed) {
      case 'set': req.session[key] = value; break
      case 'remove': delete req.session[key]; break
      case 'regenerate': case 'save': case 'reload': await called(req.session, deed); break
      case 'touch': req.session.touch(); break
      case 'destroy': await called(req.session, 'destroy'); return
      case 'unset': req.session = null; return
      case 'maxAge': req.session.cookie.maxAge = key; break
      case 'become': req.sessionID = key; break
      case 'wrap': req.session = new Proxy(req.session, {}); break
      case 'assign': req.session.cookie[key] = ODD[value]; break
      case 'cookie': req.session.cookie[key] = key === 'expires' && value !== null ? new Date(value) : value; break
      default: await own[deed](req, key)
    }
  }
}

const answers = {
  send: (req, res) => { res.send('hello') },
  json: (req, res) => { res.json({ id: req.session?.cookie }) },
  end: (req, res) => { res.end() },
  callback: (req, res) => { res.end('hello', 'utf8', () => {}) },
  length: (req, res) => { res.setHeader('Content-Length', 5); res.end('hello') },
  bytes: (req, res) => { res.setHeader('Content-Length', 5); res.end(Buffer.from('hello')) },
  writeHead: (req, res) => { res.writeHead(201, { 'Set-Cookie': 'own=1', 'X-Own': 'yes' }); res.end('made') },
  cookies: (req, res) => { res.cookie('a', '1'); res.cookie('b', '2'); res.send('cookies') },
  redirect: (req, res) => { res.redirect('/elsewhere') },
  status: (req, res) => { res.status(204).end() },
  twice: (req, res) => { res.end('once'); res.end('twice') },
  late: (req, res) => { res.end('once'); res.write(' more') },
  // Headers are sent with the first part; later changes are stored too.
  stream: async (req, res) => {
    res.write('one ')
    await new Promise(resolve => setImmediate(resolve))
    if (req.session) req.session.late = true
    res.end('two')
  },
  fail: () => { throw new Error('the application failed') }
}
export const ANSWERS = Object.keys(answers)

/**
 * Creates an application on `session`, whose store is made by `makeStore(session)`. `own` has a
 * test's own operations, and `before` runs before the session middleware.
 */
export async function world (session, options, makeStore, { before = [], ...own } = {}) {
  const { store, documents } = await makeStore(session)
  const calls = []
  for (const name of ['get', 'set', 'touch', 'destroy']) {
    if (typeof store[name] !== 'function') continue
    const real = store[name]
    store[name] = function (...args) { calls.push(name); return real.apply(this, args) }
  }
  const app = express()
  app.disable('etag')
  app.set('trust proxy', true)
  app.use(...before, (req, res, next) => next())
  app.use(session({ secret: SECRET, store, ...options }))
  const ids = []
  const note = id => { if (typeof id === 'string' && !ids.includes(id)) ids.push(id) }
  app.use(async (req, res) => {
    res.on('close', () => note(req.sessionID))
    res.on('error', () => {}) // of a second end
    note(req.sessionID)
    const { deeds, answer } = JSON.parse(decodeURIComponent(req.headers['x-deeds']))
    if (req.session) res.set('X-Data', encodeURIComponent(JSON.stringify(req.session)))
    await perform(req, deeds, own, note)
    note(req.session?.id)
    note(req.sessionID)
    await answers[answer](req, res)
  })
  const errors = []
  app.use((error, req, res, next) => {
    errors.push(`${error}`)
    if (res.headersSent) return req.socket.destroy()
    res.status(500).send(error.message)
  })
  const server = http.createServer(app).listen(0, '127.0.0.1')
  await new Promise(resolve => server.once('listening', resolve))

  const name = options.name || 'connect.sid'
  const secrets = [options.secret ?? SECRET].flat()
  const jar = []
  // Identifiers differ, so they are replaced by numbers. Their signatures are checked.
  const hide = text => ids.reduce((text, id, at) => text.replaceAll(id, `ID${at}`), text)
  const seen = header => {
    const found = new RegExp(`^${name}=s%3A([\\w-]+)\\.([^;]+)`).exec(header)
    if (!found) return header
    const [, id, signature] = found
    const hmac = createHmac('sha256', secrets[0]).update(id).digest('base64').replace(/=+$/, '')
    if (decodeURIComponent(signature) !== hmac) return `forged ${header}`
    note(id)
    jar.push(found[0])
    return hide(header.replace(signature, 'SIGNATURE'))
  }

  return {
    store,
    jar,
    /** Sends a request; returns everything observable about it. */
    async step ({ deeds = [], answer = 'send', cookie = 'last', headers = {}, method = 'GET', path = '/' }) {
      calls.length = errors.length = 0
      const sent = { last: jar.at(-1), first: jar[0], none: undefined, cut: jar.at(-1)?.slice(0, -3) }
      const value = cookie in sent ? sent[cookie] : cookie
      const response = await request(server, {
        method, path, headers: { ...(value && { cookie: value }), ...headers, 'x-deeds': encodeURIComponent(JSON.stringify({ deeds, answer })) }
      })
      const { 'set-cookie': cookies = [], 'x-data': data, date, ...others } = response.headers
      return {
        status: response.status,
        body: response.body,
        headers: others,
        cookies: cookies.map(seen),
        data: data && hide(decodeURIComponent(data)),
        calls: calls.filter(name => name !== 'destroy').join(' '),
        destroyed: calls.filter(name => name === 'destroy').length,
        errors: errors.map(hide),
        documents: (await documents()).map(hide).sort()
      }
    },
    async close () {
      server.closeAllConnections()
      await new Promise(resolve => server.close(resolve))
    }
  }
}

export function request (server, { method = 'GET', path = '/', headers = {}, port = server.address().port }) {
  return new Promise((resolve, reject) => {
    http.request({ host: '127.0.0.1', port, method, path, headers, agent: false, signal: AbortSignal.timeout(30_000) }, response => {
      const parts = []
      response.on('data', part => parts.push(part))
      response.on('error', reject)
      response.on('end', () => resolve({
        status: response.statusCode,
        headers: response.headers,
        body: Buffer.concat(parts).toString()
      }))
    }).on('error', reject).end()
  })
}

export const memory = async session => {
  const store = new session.MemoryStore()
  return { store, documents: async () => Object.entries(store.sessions).map(entry => entry.join(' ')) }
}

// With `unset: 'destroy'`, express-session destroys again what was already destroyed or never
// stored. While it waits for that, the response has no known length, and a late part is sent.
export function explain (expected, actual) {
  if (expected.destroyed <= actual.destroyed) return
  for (const seen of [expected, actual]) {
    delete seen.destroyed
    seen.body = seen.body.replace('once more', 'once')
    delete seen.headers['content-length']
    delete seen.headers['transfer-encoding']
  }
}
