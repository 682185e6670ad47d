// Typical applications for express-session, with the usual packages: on express-session, and on
// edge-session in its place.
import 'reflect-metadata'
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import { Controller, Get, Req, Session as NestSession } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { ExpressAdapter } from '@nestjs/platform-express'
import cookieParser from 'cookie-parser'
import { doubleCsrf } from 'csrf-csrf'
import express from 'express'
import fastify from 'fastify'
import { Passport } from 'passport'
import { Server } from 'socket.io'
import { io } from 'socket.io-client'
import { SECRET, ours, theirs } from './rig.mjs'

const require = createRequire(import.meta.url)
const flash = require('connect-flash')
const fastifyExpress = require('@fastify/express')

// A browser: cookies by name.
function browser (port) {
  const jar = new Map()
  const cookie = () => [...jar].map(([name, value]) => `${name}=${value}`).join('; ')
  const visit = (path, { method = 'GET', headers = {} } = {}) => new Promise((resolve, reject) => {
    const sent = { ...headers, ...(jar.size && { cookie: cookie() }) }
    http.request({ host: '127.0.0.1', port, path, method, headers: sent, agent: false }, async response => {
      for (const header of response.headers['set-cookie'] ?? []) {
        const [, name, value] = /^([^=]+)=([^;]*)/.exec(header)
        if (/Expires=Thu, 01 Jan 1970/.test(header)) jar.delete(name)
        else jar.set(name, value)
      }
      let body = ''
      for await (const part of response) body += part
      resolve({ status: response.statusCode, location: response.headers.location, body, jar: [...jar.keys()].sort() })
    }).on('error', reject).end()
  })
  return { visit, cookie }
}

async function listen (t, server) {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => { server.closeAllConnections(); server.close() })
  return server.address().port
}

/** Returns what the steps see of an application with this middleware. */
const inExpress = build => async (t, session) => {
  const app = express()
  app.use(session)
  build(app)
  app.use((error, req, res, next) => { res.status(error.status ?? 500).send(error.message) })
  return browser(await listen(t, http.createServer(app)))
}

const visits = (...steps) => async ({ visit }) => {
  const seen = []
  for (const step of steps) seen.push(await visit(...[step].flat()))
  return seen
}

const APPLICATIONS = {
  passport: {
    begin: inExpress(app => {
      const passport = new Passport()
      passport.serializeUser((user, done) => done(null, user.name))
      passport.deserializeUser((name, done) => done(null, { name }))
      app.use(passport.initialize(), passport.session())
      app.get('/login', (req, res, next) => {
        req.session.basket = ['pear']
        req.login({ name: 'zoe' }, { keepSessionInfo: req.query.keep === 'yes' }, error => error ? next(error) : res.redirect('/'))
      })
      app.get('/logout', (req, res, next) => req.logout(error => error ? next(error) : res.redirect('/')))
      app.get('/', (req, res) => { res.json([req.user ?? null, req.isAuthenticated(), req.session.basket ?? null]) })
    }),
    play: visits('/', '/login', '/', '/logout', '/', '/login?keep=yes', '/', '/login', '/')
  },

  'connect-flash': {
    begin: inExpress(app => {
      app.use(flash())
      app.get('/say', (req, res) => { req.flash('info', 'hello'); req.flash('info', 'again'); res.redirect('/') })
      app.get('/', (req, res) => { res.json(req.flash()) })
    }),
    play: visits('/', '/say', '/', '/', '/say', '/say', '/')
  },

  'csrf-csrf': {
    begin: inExpress(app => {
      const { generateCsrfToken, doubleCsrfProtection } = doubleCsrf({
        getSecret: () => SECRET,
        getSessionIdentifier: req => req.session.id,
        cookieName: 'csrf',
        cookieOptions: { secure: false },
        getCsrfTokenFromRequest: req => req.headers['x-token']
      })
      app.use(cookieParser())
      app.get('/', (req, res) => { req.session.visited = true; res.send(generateCsrfToken(req, res)) })
      app.use(doubleCsrfProtection)
      app.post('/', (req, res) => { req.session.regenerate(() => res.send('posted')) })
    }),
    async play ({ visit }) {
      const { body: token } = await visit('/')
      const post = headers => visit('/', { method: 'POST', headers })
      const seen = [await post({}), await post({ 'x-token': token })]
      // The token belonged to the old session.
      return [...seen, await visit('/none'), await post({ 'x-token': token })]
    }
  },

  'socket.io': {
    async begin (t, session) {
      const app = express()
      app.use(session)
      app.get('/', (req, res) => { res.json([req.session.fruit ?? null, req.session.n = (req.session.n ?? 0) + 1]) })
      const server = http.createServer(app)
      const sockets = new Server(server)
      t.after(() => sockets.close())
      sockets.engine.use(session)
      sockets.on('connection', socket => {
        const { request } = socket
        socket.on('eat', (fruit, answer) => {
          request.session.reload(error => {
            if (error) return answer(String(error))
            request.session.fruit = fruit
            request.session.save(error => answer(error ? String(error) : request.session.n))
          })
        })
      })
      const port = await listen(t, server)
      return { ...browser(port), port }
    },
    async play ({ visit, cookie, port }) {
      const seen = [await visit('/')]
      for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
        const socket = io(`http://127.0.0.1:${port}`, { transports, extraHeaders: { cookie: cookie() }, forceNew: true, reconnection: false })
        seen.push(await socket.emitWithAck('eat', transports.join()))
        socket.close()
        seen.push(await visit('/'))
      }
      return seen
    }
  },

  NestJS: {
    async begin (t, session) {
      class Counter {
        count (session) { return { n: session.n = (session.n ?? 0) + 1 } }
        login (req) {
          return new Promise((resolve, reject) => req.session.regenerate(error => {
            req.session.user = 'zoe'
            return error ? reject(error) : resolve({ user: req.session.user })
          }))
        }

        logout (req) { return new Promise(resolve => req.session.destroy(resolve)) }
        fail () { throw new Error('the application failed') }
      }
      // Decorators, called as TypeScript does.
      const route = (name, path, ...parameters) => {
        Get(path)(Counter.prototype, name, Object.getOwnPropertyDescriptor(Counter.prototype, name))
        parameters.forEach((parameter, at) => parameter()(Counter.prototype, name, at))
      }
      route('count', '/', NestSession)
      route('login', '/login', Req)
      route('logout', '/logout', Req)
      route('fail', '/fail')
      Controller()(Counter)
      class Root {}
      Reflect.defineMetadata('controllers', [Counter], Root)
      const app = await NestFactory.create(Root, new ExpressAdapter(), { logger: false })
      app.use(session)
      t.after(() => app.close())
      await app.listen(0, '127.0.0.1')
      return browser(app.getHttpServer().address().port)
    },
    play: visits('/', '/', '/login', '/', '/fail', '/', '/logout', '/')
  },

  '@fastify/express': {
    async begin (t, session) {
      const app = fastify()
      t.after(() => app.close())
      await app.register(fastifyExpress)
      app.use(session)
      app.get('/', async ({ raw: { session } }) => ({ n: session.n = (session.n ?? 0) + 1 }))
      app.get('/redirect', ({ raw: { session } }, reply) => { session.n = 7; reply.redirect('/') })
      app.get('/regenerate', async ({ raw }) => {
        await new Promise(resolve => raw.session.regenerate(resolve))
        raw.session.n = 100
        return 'anew'
      })
      app.get('/fail', async () => { throw new Error('the application failed') })
      app.use('/express', (req, res) => { req.session.n = 50; res.send('from Express') })
      app.use('/node', (req, res) => { req.session.n = 60; res.end('from Node') })
      await app.listen({ port: 0, host: '127.0.0.1' })
      return browser(app.server.address().port)
    },
    play: visits('/', '/', '/redirect', '/', '/fail', '/regenerate', '/', '/express', '/', '/node', '/')
  }
}

const SETTINGS = { secret: SECRET, resave: false, saveUninitialized: false }

for (const [name, { begin, play }] of Object.entries(APPLICATIONS)) {
  test(`${name} is the same on edge-session`, { timeout: 30_000 }, async t => {
    const expected = await play(await begin(t, theirs(SETTINGS)))
    for (const settings of [SETTINGS, { ...SETTINGS, preset: 'safe' }]) {
      const seen = await play(await begin(t, ours(settings)))
      // With `safe`, a logout clears the cookie.
      if (settings.preset) for (const all of [expected, seen]) for (const one of all) delete one.jar
      assert.deepEqual(seen, expected)
    }
  })
}
