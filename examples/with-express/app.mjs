// An Express application with express-session and passport-local. Its sessions are where STORE_URL
// says: in MongoDB (connect-mongo on Mongoose's connection), Redis (connect-redis) or PostgreSQL
// (connect-pg-simple). edge-session with the same database and secret shares them.
//
//   SECRET=… STORE_URL=mongodb://127.0.0.1:27017/app PORT=3000 node app.mjs
import { randomBytes, scrypt as scryptCallback, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import express from 'express'
import session from 'express-session'
import passport from 'passport'
import { Strategy as LocalStrategy } from 'passport-local'
import { open } from './database.mjs'

const { SECRET, STORE_URL = 'mongodb://127.0.0.1:27017/app', PORT = '3000' } = process.env
if (!SECRET) throw new Error('SECRET is missing: set it to what edge-session has in EDGE_SESSION_SECRET')

const { store, users } = await open(STORE_URL, session)

// ----------------------------------------------------------------------------- the users

const scrypt = promisify(scryptCallback)

async function register (name, password) {
  const salt = randomBytes(16)
  const hash = await scrypt(password, salt, 32)
  await users.add({ name, salt, hash })
}

passport.use(new LocalStrategy(async (name, password, done) => {
  try {
    const user = await users.find(String(name))
    const hash = await scrypt(password, user?.salt ?? Buffer.alloc(16), 32)
    done(null, user && timingSafeEqual(hash, user.hash) ? user : false)
  } catch (error) { done(error) }
}))
// The session holds {passport: {user: NAME}}.
passport.serializeUser((user, done) => done(null, user.name))
passport.deserializeUser(async (name, done) => {
  try {
    done(null, await users.find(String(name)) ?? false)
  } catch (error) { done(error) }
})

// -------------------------------------------------------------------------- the sessions

const app = express()
app.use(session({
  secret: SECRET,
  resave: false,
  saveUninitialized: false,
  store,
  cookie: { maxAge: 1000 * 60 * 60 * 24, sameSite: 'lax', secure: 'auto' }
}))
app.use(passport.session())
app.use(express.urlencoded({ extended: false }))

// ----------------------------------------------------------------------------- the pages

const escaped = text => String(text).replace(/[&<>"']/g, c => `&#${c.charCodeAt()};`)
const page = body => `<!doctype html><html lang="en"><meta charset="utf-8"><title>with Express</title>
<style>body{font:1rem/1.5 system-ui;max-width:36rem;margin:3rem auto;padding:0 1rem}</style>${body}`

app.get('/', (req, res) => {
  req.session.viewCount = (req.session.viewCount ?? 0) + 1
  res.send(page(`<h1>you have visited this page ${req.session.viewCount} times</h1>
    <p><a href="/account">Your account</a></p>`))
})

app.get('/login', (req, res) => res.send(page(`<h1>Log in</h1>
  <form method="post" action="/login">
    <p><label>Name <input name="username" autocomplete="username" required></label></p>
    <p><label>Password <input name="password" type="password" autocomplete="current-password" required></label></p>
    <p><button>Log in</button></p>
  </form>`)))

// passport gives the session a new identifier here; the counter is kept.
app.post('/login', passport.authenticate('local', {
  successRedirect: '/account',
  failureRedirect: '/login',
  keepSessionInfo: true
}))

app.get('/account', (req, res) => {
  if (!req.isAuthenticated()) return res.redirect('/login')
  res.send(page(`<h1>You are ${escaped(req.user.name)}</h1>
    <form method="post" action="/logout"><button>Log out</button></form>`))
})

app.post('/logout', (req, res, next) => req.logout(error => error ? next(error) : res.redirect('/')))

await register('ada', 'analytical engine')
const server = app.listen(Number(PORT), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}`)
})
