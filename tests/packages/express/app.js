// A view counter in Express, with edge-session in place of express-session.
'use strict'
const express = require('express')
const session = require('edge-session')

const app = express()
app.use(session({ secret: process.env.SECRET, resave: false, saveUninitialized: false }))
app.get('/', (req, res) => {
  req.session.viewCount = (req.session.viewCount ?? 0) + 1
  res.send(`you have visited this page ${req.session.viewCount} times`)
})
app.listen(process.env.PORT, '127.0.0.1')
