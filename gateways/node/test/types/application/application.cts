// Compiled, not run: with express-session's types, and with edge-session's in their place.
import { createSecretKey } from 'node:crypto'
import { promisify } from 'node:util'
import express = require('express')
import session = require('express-session')

declare module 'express-session' {
  interface SessionData {
    views: number
    user: { name: string, roles?: string[] }
    messages: string[]
  }
}

interface Row { sid: string, data: string }

class OwnStore extends session.Store {
  #rows = new Map<string, Row>()

  constructor (readonly prefix: string) {
    super()
  }

  get (sid: string, callback: (error: any, session?: session.SessionData | null) => void): void {
    const row = this.#rows.get(this.prefix + sid)
    callback(null, row ? JSON.parse(row.data) as session.SessionData : null)
  }

  set (sid: string, data: session.SessionData, callback?: (error?: any) => void): void {
    const { expires, originalMaxAge } = data.cookie
    const ttl = expires instanceof Date ? expires.getTime() - Date.now() : originalMaxAge ?? 86400000
    this.#rows.set(this.prefix + sid, { sid, data: JSON.stringify({ ...data, ttl }) })
    callback?.()
  }

  destroy (sid: string, callback?: (error?: any) => void): void {
    this.#rows.delete(sid)
    callback?.()
  }

  override touch (sid: string, data: session.SessionData, callback?: () => void): void {
    this.set(sid, data, callback)
  }

  override all (callback: (error: any, sessions?: session.SessionData[]) => void): void {
    callback(null, [...this.#rows.values()].map(({ data }) => JSON.parse(data)))
  }
}

const app = express()
const options: session.SessionOptions = {
  secret: [createSecretKey(Buffer.from('a')), 'b', Buffer.from('c')],
  name: 'sid',
  store: process.env.MEMORY ? new session.MemoryStore() : new OwnStore('app:'),
  genid: req => `${req.ip ?? ''}${req.get('x-id') ?? ''}`,
  cookie: { maxAge: 60000, sameSite: 'lax', secure: 'auto', signed: true, encode: encodeURIComponent, priority: 'high', partitioned: true },
  resave: false,
  saveUninitialized: false,
  unset: 'destroy',
  proxy: true,
  rolling: true
}
if (app.get('env') === 'production' && typeof options.cookie === 'object') options.cookie.secure = true
const middleware: express.RequestHandler = session(options)
app.use(middleware)
app.use('/dynamic', session({ secret: 'a', cookie: req => ({ path: req.baseUrl, httpOnly: req.secure, expires: null, domain: undefined }) }))
app.use(session())

// A stored cookie has what was set.
const stored: session.SessionData = { cookie: { originalMaxAge: null }, views: 1, user: { name: 'zoe' }, messages: [] }
const memory = new session.MemoryStore()
memory.set('id', stored)
memory.get('id', (error, found) => console.log(error, found?.cookie.path, found?.views.toFixed()))
memory.all((error, sessions) => console.log(error, Object.values(sessions ?? {}).length))
memory.length((error, length) => console.log(error, length))
memory.touch('id', stored, () => {})
memory.clear(() => {})
memory.clear()
memory.on('disconnect', () => {})
memory.load('id', (error, found) => console.log(error, found?.cookie))
const store: session.Store = memory
store.all?.((error, sessions) => console.log(error, sessions))

const login = (req: express.Request, res: express.Response, next: express.NextFunction) => {
  const { name } = req.query
  req.session.regenerate(error => {
    if (error) return next(error)
    req.session.user = { name: String(name) }
    if (req.body?.remember) req.session.cookie.maxAge = 30 * 24 * 3600 * 1000
    else req.session.cookie.expires = null
    req.session.cookie.maxAge = undefined
    req.session.save(next)
  })
}
app.get('/login', login)

app.get('/', async (req, res) => {
  req.session.views = (req.session.views ?? 0) + 1
  req.session.messages ??= []
  req.session.messages.push('hello')
  const { user, views = 0, cookie } = req.session
  await promisify(req.session.save.bind(req.session))()
  await promisify<void>(done => req.session.reload(done))()
  await new Promise<void>((resolve, reject) => req.session.save(error => error ? reject(error) : resolve()))
  const left: number | undefined = cookie.maxAge
  const own: session.Session = req.session
  const whole: session.Session & Partial<session.SessionData> = req.session.touch()
  own.resetMaxAge().touch().save(() => {})
  const keep: express.Request['session'] = whole
  res.json({ views: views.toFixed(), name: user?.name, left, id: keep.id, same: req.sessionID === keep.id })
})

app.post('/logout', (req, res, next) => {
  req.session.destroy((error: Error | undefined) => {
    if (error) return next(error)
    res.clearCookie('sid').redirect('/')
  })
  const { sessionStore }: { sessionStore: Express.SessionStore } = req
  sessionStore.generate(req)
  sessionStore.regenerate(req, () => {})
  sessionStore.createSession(req, stored).save()
  sessionStore.destroy(req.sessionID)
  delete (req as Partial<express.Request>).session
})

function requireLogin (req: express.Request, res: express.Response, next: express.NextFunction): void {
  if (req.session?.user) next()
  else res.sendStatus(401)
}
app.use(requireLogin)
