// A typical proxy with sessions on Express. It counts visits of /count itself.
//
//   node proxy.mjs PORT URL-OF-THE-APPLICATION SECRET
import { Agent } from 'node:http'
import express from 'express'
import session from 'express-session'
import { createProxyMiddleware } from 'http-proxy-middleware'

const [port, target, secret] = process.argv.slice(2)

const app = express()
app.disable('x-powered-by')
app.use(session({ secret, resave: false, saveUninitialized: false }))
app.get('/count', (req, res, next) => {
  req.session.viewCount = (req.session.viewCount ?? 0) + 1
  res.set('View-Count', String(req.session.viewCount))
  next()
})
const agent = new Agent({ keepAlive: true, maxFreeSockets: 1024 })
app.use(createProxyMiddleware({ target, agent, xfwd: true }))

const server = app.listen(Number(port), '127.0.0.1', 4096)
// As in the other proxies: idle visitors are not disconnected while they are counted.
server.keepAliveTimeout = 300_000
