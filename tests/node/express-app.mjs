// The view counter on Express, express-session and connect-mongo: what edge-session must agree with.
// The environment has SECRET and MONGODB_URI (with the database); prints the port that it listens on.
import MongoStore from 'connect-mongo'
import express from 'express'
import session from 'express-session'

const app = express()
app.use(session({
  secret: process.env.SECRET,
  resave: false,
  saveUninitialized: false,
  store: MongoStore.create({ mongoUrl: process.env.MONGODB_URI })
}))
app.get('/', (req, res) => {
  req.session.viewCount = (req.session.viewCount ?? 0) + 1
  res.send(`<h1>you have visited this page ${req.session.viewCount} times</h1>`)
})

const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port))
