// A server that performs the operations in a request's header, for tests that compare gateways:
//   node conformance-server.mjs express|fetch PORT
// The environment contains EDGE_SESSION_SECRET (several, newest first, separated by commas),
// EDGE_SESSION_STORE (memory: or mongodb://…) and EDGE_SESSION_OPTIONS (JSON, with the names of the
// configuration file; the default preset is "safe"). `X-Deeds` is a JSON array of ["set", key,
// value], ["remove", key], ["regenerate"], ["renew"], ["destroy"] and ["maxAge", milliseconds or
// null]. The response is {"data": the session's data before}.
import http from 'node:http'
import { Readable } from 'node:stream'
import { deedsOf, fetchHandler, settings } from './conformance-fetch.mjs'

const [kind, port] = process.argv.slice(2)
const { options, lifetimes, store: { uri, collection, dbName } } = settings(process.env)

async function expressListener () {
  const { default: express } = await import('express')
  const { default: session } = await import('edge-session')
  const store = uri.startsWith('mongodb')
    ? (await import('connect-mongo')).MongoStore.create({
        mongoUrl: uri, dbName, ...(collection && { collectionName: collection }), ...lifetimes
      })
    : new session.MemoryStore()

  const regenerate = req => new Promise((resolve, reject) =>
    req.session.regenerate(error => error ? reject(error) : resolve()))
  const deeds = {
    set: (req, key, value) => { req.session[key] = value },
    remove: (req, key) => { delete req.session[key] },
    regenerate,
    renew: async req => {
      const { cookie, ...data } = req.session
      await regenerate(req)
      Object.assign(req.session, data)
      req.session.cookie.maxAge = cookie.originalMaxAge
    },
    destroy: req => new Promise((resolve, reject) =>
      req.session.destroy(error => error ? reject(error) : resolve())),
    maxAge: (req, millis) => { req.session.cookie.maxAge = millis }
  }

  const app = express()
  app.disable('etag')
  app.use(session({ ...options, store }))
  app.use(async (req, res) => {
    let data = null
    if (req.session) {
      const { cookie, ...others } = req.session
      data = structuredClone(others)
      for (const [deed, ...values] of deedsOf(req.headers['x-deeds'])) {
        if (req.session) await deeds[deed](req, ...values)
      }
    }
    res.json({ data })
  })
  app.use((error, req, res, next) => {
    if (res.headersSent) return next(error)
    res.status(error.status ?? 503).send(`${error.message}\n`)
  })
  return app
}

async function fetchListener () {
  const handle = await fetchHandler(process.env, await import('edge-session/fetch'))
  return async (req, res) => {
    const headers = new Headers()
    for (let at = 0; at < req.rawHeaders.length; at += 2) headers.append(req.rawHeaders[at], req.rawHeaders[at + 1])
    const response = await handle(new Request(`http://localhost${req.url}`, { method: req.method, headers }))
    const { 'set-cookie': _, ...others } = Object.fromEntries(response.headers)
    res.writeHead(response.status, { ...others, 'set-cookie': response.headers.getSetCookie() })
    if (response.body) Readable.fromWeb(response.body).pipe(res)
    else res.end()
  }
}

const listener = await { express: expressListener, fetch: fetchListener }[kind]()
http.createServer(listener).listen(Number(port), '127.0.0.1', () => console.log('ready'))
