// Requests through the real express-session with connect-mongo, connect-redis or connect-pg-simple,
// for the differential tests in tests/interop: one JSON object per line of input and of output, in any
// order, matched by `call`. STORE names the store's package, STORE_URL its server (for MongoDB, with the
// database). Each line sets the time. An argument names the module that replaces express-session.
import { AsyncLocalStorage } from 'node:async_hooks'
import { createHash } from 'node:crypto'
import http from 'node:http'
import { createRequire } from 'node:module'
import net from 'node:net'
import readline from 'node:readline'
import { Writable } from 'node:stream'

const clock = new AsyncLocalStorage()
const RealDate = Date
globalThis.Date = class Date extends RealDate {
  constructor (...args) {
    if (args.length === 0) super(Date.now())
    else super(...args)
  }

  static now () { return clock.getStore() ?? RealDate.now() }
}

const require = createRequire(import.meta.url)
const session = require(process.argv[2] ?? 'express-session')
const { MongoStore, createWebCryptoAdapter } = await import('connect-mongo')
const { STORE, STORE_URL } = process.env

// The client of the store's server, and what makes a store.
const servers = {
  'connect-mongo': async () => {
    const { MongoClient } = require('mongodb')
    const client = await MongoClient.connect(STORE_URL)
    return [() => client.close(), mongoStore.bind(undefined, client)]
  },
  'connect-redis': async () => {
    const { RedisStore } = await import('connect-redis')
    const client = await require('redis').createClient({ url: STORE_URL }).connect()
    return [() => client.close(), ({ collection, ttl }) => new RedisStore({ client, prefix: `${collection}:`, ttl })]
  },
  'connect-pg-simple': async () => {
    const { default: PgSimple } = await import('connect-pg-simple')
    const Store = PgSimple(require('express-session'))
    const pool = new (require('pg').Pool)({ connectionString: STORE_URL })
    return [() => pool.end(), ({ collection, ttl }) => new Store({
      pool, tableName: collection, ttl, pruneSessionInterval: false, errorLog: () => {}
    })]
  }
}

function mongoStore (client, { collection, crypto, transformId, ...options }) {
  return MongoStore.create({
    client,
    collectionName: collection,
    autoRemove: 'disabled',
    ...(transformId === 'sha256' && {
      transformId: id => createHash('sha256').update(id).digest('hex')
    }),
    ...(crypto?.format === 'kruptein' && { crypto: { secret: crypto.secret } }),
    ...(crypto?.format === 'webcrypto' && { cryptoAdapter: webCrypto(crypto.secret) }),
    ...options
  })
}

const [close, createStore] = await servers[STORE]()

// The middleware for a configuration, created once.
const made = new Map()
function sessions (config) {
  const key = JSON.stringify(config)
  if (!made.has(key)) {
    if (made.size > 1000) made.clear()
    const store = createStore(config.store)
    const { expires, ...cookie } = config.session.cookie
    if (expires !== undefined) cookie.expires = new Date(expires)
    made.set(key, { store, middleware: session({ ...config.session, cookie, store }) })
  }
  return made.get(key)
}

// One per secret, because deriving the key takes a while.
const adapters = new Map()
function webCrypto (secret) {
  if (!adapters.has(secret)) adapters.set(secret, createWebCryptoAdapter({ secret }))
  return adapters.get(secret)
}

const called = (object, method) => new Promise((resolve, reject) =>
  object[method](error => error ? reject(error) : resolve()))

// connect-mongo adds its lastModified to the application's values (with touchAfter).
const NOT_DATA = new Set(['cookie', 'lastModified'])

// The application's operations.
async function perform (req, deeds) {
  for (const { deed, key, value } of deeds) {
    switch (deed) {
      case 'set': req.session[key] = JSON.parse(value); break
      case 'remove': delete req.session[key]; break
      case 'clear': Object.keys(req.session).forEach(k => NOT_DATA.has(k) || delete req.session[k]); break
      case 'regenerate': await called(req.session, 'regenerate'); break
      case 'destroy': await called(req.session, 'destroy'); return
      case 'unset': req.session = null; return
      case 'cookie': req.session.cookie[key] = key === 'expires' && value !== null ? new Date(value) : value; break
      default: throw new Error(`unknown deed ${deed}`)
    }
  }
  // lastModified is the last value when the session is loaded. If it were not at the end, a value
  // that was removed and set again would be a change of the order only.
  const { lastModified } = req.session
  if (lastModified !== undefined) {
    delete req.session.lastModified
    req.session.lastModified = lastModified
  }
}

function request ({ config, request }) {
  return new Promise(resolve => {
    const { middleware } = sessions(config)
    const socket = new net.Socket()
    if (request.tls) socket.encrypted = true
    const req = new http.IncomingMessage(socket)
    req.method = 'GET'
    req.url = request.path
    req.headers = request.headers
    req.secure = request.secure
    const res = new http.ServerResponse(req)
    let error
    let data = null
    const done = () => resolve({
      status: error ? 500 : 200,
      error: error && String(error),
      cookies: [].concat(res.getHeader('set-cookie') ?? []),
      session: req.sessionID ?? null,
      data
    })
    const failed = e => { error = e; if (!res.headersSent) done() }
    res.assignSocket(new Writable({ write: (chunk, encoding, callback) => callback() }))
    // express-session ends the response when the session is stored.
    const end = res.end
    res.end = function (...args) { const ret = end.apply(this, args); setImmediate(done); return ret }
    try {
      middleware(req, res, async e => {
        if (e) return failed(e)
        if (res.headersSent) return
        try {
          if (req.session) {
            data = Object.fromEntries(request.keys.map(key => [key, JSON.stringify(req.session[key]) ?? null]))
            await perform(req, request.deeds)
          }
          request.cookies.forEach(cookie => res.appendHeader('Set-Cookie', cookie))
          res.end('ok')
        } catch (e) { failed(e) }
      })
    } catch (e) { failed(e) }
  })
}

const jobs = {
  request,
  // What connect-mongo reads from a document.
  load: ({ config, id }) => new Promise(resolve => sessions(config).store.get(id, (error, found) =>
    resolve({ error: error && String(error), text: found ? JSON.stringify(found) : null }))),
  // JavaScript's representation of a JSON text.
  json: async ({ text }) => ({ text: JSON.stringify(JSON.parse(text)) })
}

process.stdout.on('error', () => process.exit()) // the reader has gone
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { call, now, job, ...task } = JSON.parse(line)
  clock.run(now, () => jobs[job](task)).then(
    answer => console.log(JSON.stringify({ call, ...answer })),
    error => console.log(JSON.stringify({ call, failed: String(error?.stack ?? error) }))
  )
}
await close()
