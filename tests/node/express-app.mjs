// The view counter on Express and express-session, the reference for edge-session. STORE is
// connect-mongo, connect-mongodb-session, connect-pg-simple or connect-redis. The environment contains SECRET and the
// store's address, STORE_URL. Prints the port that it listens on.
import MongoStore from 'connect-mongo'
import connectMongoDBSession from 'connect-mongodb-session'
import connectPgSimple from 'connect-pg-simple'
import { RedisStore } from 'connect-redis'
import express from 'express'
import session from 'express-session'
import { createClient } from 'redis'

const { SECRET, STORE_URL, STORE } = process.env
const stores = {
  'connect-mongo': () => MongoStore.create({ mongoUrl: STORE_URL }),
  'connect-mongodb-session': () =>
    new (connectMongoDBSession(session))({ uri: STORE_URL, collection: 'sessions' }),
  'connect-pg-simple': () => new (connectPgSimple(session))({ conString: STORE_URL }),
  'connect-redis': () => {
    const client = createClient({ url: STORE_URL })
    client.connect()
    return new RedisStore({ client })
  }
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
