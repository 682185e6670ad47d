// The same application as tests/python/counter_app.py, on Express without express-session: it uses
// sessions only through two headers. Prints the port that it listens on.
import express from 'express'

// Node sends only headers in Latin-1, and the gateway accepts only UTF-8. ASCII satisfies both.
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
