import express = require('express')
import headerSessions = require('edge-session/headers')
import { headerSessions as named } from 'edge-session/headers'

const app = express()
app.use(headerSessions())
app.use(named())
app.get('/', async (req, res) => {
  const id: string = req.sessionID
  req.session.save(() => {})
  await req.session.regenerate()
  // @ts-expect-error: it takes no options, they are the gateway's.
  headerSessions({ secret: id })
  res.end()
})
