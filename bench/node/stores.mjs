// The page of the comparison of stores, on Express with the database's usual store.
//
//   node stores.mjs PORT URL-OF-THE-DATABASE NAME SECRET
//
// NAME is the database in MongoDB, the table in PostgreSQL, the prefix of keys in Redis.
import { MongoStore } from 'connect-mongo'
import connectPgSimple from 'connect-pg-simple'
import { RedisStore } from 'connect-redis'
import express from 'express'
import session from 'express-session'
import pg from 'pg'
import { createClient } from 'redis'

const [port, url, name, secret] = process.argv.slice(2)

const stores = {
  'mongodb:': () => MongoStore.create({ mongoUrl: url, dbName: name }),
  'redis:': async () => new RedisStore({ client: await createClient({ url }).connect(), prefix: `${name}:` }),
  'postgres:': () => {
    const Store = connectPgSimple(session)
    return new Store({ pool: new pg.Pool({ connectionString: url }), tableName: name })
  }
}
const store = await stores[url.slice(0, url.indexOf(':') + 1)]()

const app = express()
app.disable('x-powered-by')
app.use(session({ secret, store, resave: false, saveUninitialized: false }))
const page = count => `<h1>you have visited this page ${count} times</h1>`
app.get('/read', (req, res) => { res.send(page(req.session.viewCount ?? 0)) })
app.get('/count', (req, res) => {
  req.session.viewCount = (req.session.viewCount ?? 0) + 1
  res.send(page(req.session.viewCount))
})
app.listen(Number(port), '127.0.0.1', 4096)
