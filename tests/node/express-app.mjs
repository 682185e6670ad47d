// The view counter on Express and express-session, the reference for edge-session. STORE is
// connect-mongo or connect-mongodb-session. The environment contains SECRET and MONGODB_URI (with
// the database). Prints the port that it listens on.
import MongoStore from 'connect-mongo'
import connectMongoDBSession from 'connect-mongodb-session'
import express from 'express'
import session from 'express-session'

const { SECRET, MONGODB_URI, STORE } = process.env
const stores = {
  'connect-mongo': () => MongoStore.create({ mongoUrl: MONGODB_URI }),
  'connect-mongodb-session': () =>
    new (connectMongoDBSession(session))({ uri: MONGODB_URI, collection: 'sessions' })
}

const app = express()
app.use(session({
  secret: SECRET,
  resave: false,
  saveUninitialized: false,
  store: stores[STORE ?? 'connect-mongo']()
}))
app.get('/', (req, res) => {
  req.session.viewCount = (req.session.viewCount ?? 0) + 1
  res.send(`<h1>you have visited this page ${req.session.viewCount} times</h1>`)
})

const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port))
