// Caching headers, in the drop-in and in fetch handlers.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import { test } from 'node:test'
import express from 'express'
import { withSession } from 'edge-session/fetch'
import { SECRET, ours, request, theirs } from './rig.mjs'

const NAMES = ['cache-control', 'vary', 'cdn-cache-control', 'surrogate-control', 'set-cookie']
const only = headers => Object.fromEntries(NAMES.filter(name => headers[name]).map(name =>
  [name, name === 'set-cookie' ? 'sent' : headers[name]]))

// A handler's use of `session`, an object with data, and the headers that it sends.
const inExpress = (session, deed, headers, options) => async () => {
  const app = express()
  app.use(session({ secret: SECRET, resave: false, saveUninitialized: false, ...options }))
  app.use((req, res) => {
    deed({ get data () { return req.session } })
    if (options.isWritten) return res.writeHead(200, headers).end('written')
    res.set(headers).send('sent')
  })
  const server = http.createServer(app).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const response = await request(server, {})
  server.close()
  return only(response.headers)
}

const inFetch = (deed, headers, options) => async () => {
  const handle = withSession((request, session) => {
    deed(session)
    return new Response('sent', { headers })
  }, { secret: SECRET, ...options })
  return only(Object.fromEntries((await handle(new Request('http://localhost/'))).headers))
}

async function same (row, deed, headers, expected) {
  for (const play of [
    inExpress(ours, deed, headers, { preset: 'safe' }),
    inExpress(ours, deed, headers, { preset: 'safe', isWritten: true }),
    inFetch(deed, headers)
  ]) assert.deepEqual(await play(), expected, JSON.stringify(row))
}

const change = ({ data }) => { data.n = 1 }
const look = ({ data }) => data.n
const nothing = () => {}

test('no shared cache keeps a response that carries the session\'s cookie', async () => {
  const table = [
    [undefined, 'no-store'],
    ['public', 'private'],
    ['public, max-age=60', 'private, max-age=60'],
    ['max-age=60, s-maxage=600', 'private, max-age=60'],
    ['S-MaxAge=600,PUBLIC', 'private'],
    ['no-cache', 'private, no-cache'],
    ['private, max-age=60', 'private, max-age=60'],
    ['Private', 'Private'],
    ['no-store', 'no-store'],
    ['no-store, must-understand', 'private, no-store, must-understand'],
    ['private="x-user", max-age=60', 'private, private="x-user", max-age=60'],
    ['no-cache="a, public, b", public', 'private, no-cache="a, public, b"'],
    ['x="a\\", public', 'private, x="a\\", public'],
    ['public, x="a\\', 'private, x="a\\'],
    ['x-public, my-s-maxage=7', 'private, x-public, my-s-maxage=7']
  ]
  for (const [given, expected] of table) {
    await same(given, change, given === undefined ? {} : { 'Cache-Control': given },
      { 'cache-control': expected, vary: 'Cookie', 'set-cookie': 'sent' })
  }
  await same('for CDNs', change, { 'Cache-Control': 'private', 'CDN-Cache-Control': 'max-age=60', 'Surrogate-Control': 'max-age=60' },
    { 'cache-control': 'private', 'cdn-cache-control': 'no-store', 'surrogate-control': 'no-store', vary: 'Cookie', 'set-cookie': 'sent' })
})

test('a response that the session was read for varies by the cookie', async () => {
  const table = [[undefined, 'Cookie'], ['Accept', 'Accept, Cookie'], ['accept, cookie', 'accept, cookie'], ['*', '*'],
    ['X-Cookie', 'X-Cookie, Cookie'], ['Cookie, Accept', 'Cookie, Accept']]
  for (const [given, expected] of table) {
    const headers = { 'Cache-Control': 'public, max-age=60', ...(given && { Vary: given }) }
    await same(given, look, headers, { 'cache-control': 'public, max-age=60', vary: expected })
  }
})

test('a response that nobody read the session for is nobody\'s', async () => {
  await same('nothing', nothing, { 'Cache-Control': 'public, s-maxage=60', 'CDN-Cache-Control': 'max-age=60' },
    { 'cache-control': 'public, s-maxage=60', 'cdn-cache-control': 'max-age=60' })
})

test('everything that a session says of the cookie is read', async () => {
  for (const name of ['id', 'origin', 'isNew', 'data', 'cookie', 'expires', 'maxAge']) {
    assert.deepEqual(await inFetch(session => session[name], {})(), { vary: 'Cookie' }, name)
  }
})

test('headers that cannot be changed vary, too', async () => {
  const handle = withSession((request, session) => session.data.n ? undefined : Response.redirect('http://localhost/'), { secret: SECRET })
  const response = await handle(new Request('http://localhost/'))
  assert.deepEqual([response.status, response.headers.get('vary')], [302, 'Cookie'])
})

test('with the preset of express-session, caches are told what express-session tells them', async () => {
  const headers = { 'Cache-Control': 'public, s-maxage=60', Vary: 'Accept', 'CDN-Cache-Control': 'max-age=60' }
  for (const deed of [change, look, nothing]) {
    for (const given of [headers, {}]) {
      const expected = await inExpress(theirs, deed, given, {})()
      for (const play of [inExpress(ours, deed, given, {}), inFetch(deed, given, { preset: 'express', saveUninitialized: false })]) {
        assert.deepEqual(await play(), expected)
      }
    }
  }
})
