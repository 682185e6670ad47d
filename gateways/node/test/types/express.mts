// Compiled, not run.
import { MongoStore } from 'connect-mongo'
import express from 'express'
import session, { Cookie, MemoryStore, OptionsError, Session, Store } from 'edge-session'

declare module 'edge-session' {
  interface SessionData { views: number }
}

class OwnStore extends Store {
  get (sid: string, callback: (error?: unknown, session?: session.SessionData | null) => void) { callback(null, null) }
  set (sid: string, data: session.SessionData, callback?: (error?: unknown) => void) { callback?.() }
  destroy (sid: string, callback?: (error?: unknown) => void) { callback?.() }
}

const app = express()
app.use(session({
  secret: ['new', new Uint8Array(32)],
  store: Math.random() < 1 ? new OwnStore() : new MemoryStore(),
  preset: 'safe',
  cookie: { maxAge: 60000, sameSite: 'lax', secure: 'auto' }
}))
session({ secret: 'a', store: MongoStore.create({ mongoUrl: 'mongodb://localhost' }) })
session({ secret: 'a', genid: req => `${req.ip} x` })
// @ts-expect-error it is a text
session({ secret: 'a', genid: () => 7 })

app.get('/promises', async (req, res) => {
  const saved: void = await req.session.save()
  req.session.reload().then(() => req.session.regenerate()).catch((error: unknown) => { console.log(error, saved) })
  await req.session.destroy()
  res.send('done')
})

app.get('/', (req, res) => {
  req.session.views = (req.session.views ?? 0) + 1
  // @ts-expect-error nobody declared it
  req.session.other = 1
  req.session.cookie.maxAge = undefined
  const cookie: Cookie = req.session.cookie
  const own: Session = req.session
  req.session.regenerate(error => {
    if (error instanceof OptionsError) console.log(error.problems[0]?.name)
    res.send(`${req.sessionID} ${own.id} ${cookie.expires?.getTime()} ${String(req.sessionStore)}`)
  })
})
