// Compiled, not run: what is a mistake with express-session's types is one with edge-session's.
import express = require('express')
import session = require('express-session')

declare module 'express-session' {
  interface SessionData {
    views: number
    user: { name: string, roles?: string[] }
  }
}

// @ts-expect-error the secret is missing
session({})
// @ts-expect-error
session({ secret: 7 })
// @ts-expect-error
session({ secret: ['a', undefined] })
// @ts-expect-error
session({ secret: 'a', genid: () => 7 })
// @ts-expect-error
session({ secret: 'a', genid: req => req.nonsense })
// @ts-expect-error
session({ secret: 'a', cookie: req => ({ path: req.nonsense }) })
// @ts-expect-error
session({ secret: 'a', cookie: { sameSite: 'loose' } })
// @ts-expect-error
session({ secret: 'a', cookie: { maxAge: '1h' } })
// @ts-expect-error
session({ secret: 'a', cookie: { maxAge: null } })
// @ts-expect-error
session({ secret: 'a', cookie: { expires: 5000 } })
// @ts-expect-error
session({ secret: 'a', cookie: { nonsense: true } })
// @ts-expect-error
session({ secret: 'a', unset: 'forget' })
// @ts-expect-error
session({ secret: 'a', resave: 'no' })
// @ts-expect-error
session({ secret: 'a', name: 7 })
// @ts-expect-error
session({ secret: 'a', nonsense: true })
// @ts-expect-error it is no event emitter
session({ secret: 'a', store: { get () {}, set () {}, destroy () {} } })
// @ts-expect-error
session({ secret: 'a', store: {} })

// @ts-expect-error `destroy` is missing
class Incomplete extends session.Store {
  get (sid: string, callback: (error: any, session?: session.SessionData | null) => void) { callback(null, null) }
  set (sid: string, data: session.SessionData, callback?: (error?: any) => void) { callback?.(data) }
}
console.log(Incomplete)

// @ts-expect-error
new session.Session()
// @ts-expect-error
new session.Store()
const memory = new session.MemoryStore()
// @ts-expect-error
memory.get(7, () => {})
// @ts-expect-error
memory.set('id', { views: 1 })
// @ts-expect-error
memory.set('id', { cookie: { originalMaxAge: '1h' }, views: 1, user: { name: 'zoe' } })
// @ts-expect-error
memory.all((error, sessions) => sessions.id)
const store: session.Store = memory
// @ts-expect-error not every store has it
store.clear()

const app = express()
app.get('/', (req, res) => {
  // @ts-expect-error it may be missing
  console.log(req.session.views.toFixed())
  // @ts-expect-error it may be missing
  console.log(req.session.user.name)
  // @ts-expect-error
  req.session.views = 'many'
  // @ts-expect-error nobody declared it
  req.session.other = 1
  // @ts-expect-error
  req.sessionID = 7
  // @ts-expect-error
  req.session.cookie.maxAge = null
  // @ts-expect-error
  req.session.cookie.expires = false
  // @ts-expect-error
  req.session.cookie.originalMaxAge = '1h'
  // @ts-expect-error
  req.session.cookie.nonsense = 1
  // @ts-expect-error
  req.session.save('now')
  // @ts-expect-error
  req.session.regenerate((error, other) => { console.log(error, other) })
  // @ts-expect-error
  req.session.destroy(7)
  // @ts-expect-error
  req.session.touch(() => {})
  // @ts-expect-error
  req.sessionStore.generate()
  // @ts-expect-error
  req.sessionStore.regenerate(7, () => {})
  // @ts-expect-error
  const maxAge: number = req.session.cookie.maxAge
  // @ts-expect-error
  const expires: string = req.session.cookie.expires
  res.json([maxAge, expires])
})
