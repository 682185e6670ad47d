// Bundled, and run by itself.
const http = require('node:http')
const session = require('edge-session')
const Store = require('edge-session/session/store')

const middleware = session({ secret: 'a secret of at least 32 bytes is long', resave: false, saveUninitialized: false })
const server = http.createServer((req, res) => middleware(req, res, () => {
  req.session.n = (req.session.n ?? 0) + 1
  res.end(`${req.session.n} ${req.sessionStore instanceof Store}`)
})).listen(0, '127.0.0.1', async () => {
  const url = `http://127.0.0.1:${server.address().port}/`
  const first = await fetch(url)
  const cookie = first.headers.getSetCookie()[0].split(';')[0]
  console.log(await (await fetch(url, { headers: { cookie } })).text())
  server.closeAllConnections()
  server.close()
})
