'use strict'

const { session, Cookie, MemoryStore, OptionsError, Session, Store } = require('./generated/express.cjs')

exports = module.exports = session
exports.Cookie = Cookie
exports.MemoryStore = MemoryStore
exports.OptionsError = OptionsError
exports.Session = Session
exports.Store = Store
