// An Express application with passport-local whose sessions come from the gateway's headers:
// `edge-session/headers` replaces express-session and a store. Prints the port that it listens on.
import { createRequire } from 'node:module'
import headerSessions from '../../gateways/node/src/headers.cjs'

// Uses the packages of the example with Express.
const require = createRequire(new URL('../../examples/with-express/app.mjs', import.meta.url))
const express = require('express')
const passport = require('passport')
const { Strategy } = require('passport-local')

passport.use(new Strategy((name, password, done) =>
  done(null, password === 'analytical engine' && { name })))
passport.serializeUser((user, done) => done(null, user.name))
passport.deserializeUser((name, done) => done(null, { name }))

const app = express()
app.use(headerSessions())
app.use(passport.session())
app.use(express.urlencoded({ extended: false }))
app.get('/', (req, res) => {
  req.session.viewCount = (req.session.viewCount ?? 0) + 1
  res.send(`you have visited this page ${req.session.viewCount} times`)
})
app.get('/login', (req, res) => res.send(`<form method="post" action="/login">
  <input name="username"><input name="password" type="password"><button>Log in</button></form>`))
app.post('/login', passport.authenticate('local', {
  successRedirect: '/account', failureRedirect: '/login', keepSessionInfo: true
}))
app.get('/account', (req, res) => res.send(`<h1>You are ${encodeURI(req.user?.name)}</h1>
  <form method="post" action="/logout"><button>Log out</button></form>`))
app.post('/logout', (req, res, next) => req.logout(error => error ? next(error) : res.redirect('/')))

const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port))
