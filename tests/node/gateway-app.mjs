// The same application as tests/python/counter_app.py, on Express and without express-session: what
// it knows of sessions is two headers. Prints the port that it listens on.
import express from 'express'

// Node sends no header that is not Latin-1, and the gateway takes none that is not UTF-8.
// ASCII is both.
const toAscii = text => text.replace(/[\u007f-\uffff]/g, unit =>
  '\\u' + unit.charCodeAt(0).toString(16).padStart(4, '0'))

const app = express()
app.use(express.urlencoded({ extended: false }))
app.use((req, res, next) => {
  req.session = JSON.parse(req.get('edge-session'))
  res.change = patch => res.set('Edge-Session-Merge', toAscii(JSON.stringify(patch)))
  next()
})
app.get('/', (req, res) => {
  const viewCount = (req.session.viewCount ?? 0) + 1
  res.change({ viewCount }).send(`you have visited this page ${viewCount} times`)
})
app.get('/account', (req, res) => res.send(`You are ${req.session.user}`))
app.get('/login', (req, res) => res.send(
  '<form method="post" action="/login"><input name="username">' +
  `<input type="hidden" name="return" value="${encodeURI(req.query.return ?? '/')}">` +
  '<button>Log in</button></form>'
))
app.post('/login', (req, res) => {
  res.change({ user: req.body.username }).redirect(303, req.body.return)
})

const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port))
