'use strict'

const { readFileSync } = require('node:fs')
const { join } = require('node:path')
const { sessions, Cookie, MemoryStore, OptionsError, Session, Store } = require('./generated/express.cjs')

// Compiled when the first middleware is made, once.
const compiled = new Map()
function modules (name) {
  if (!compiled.has(name)) {
    compiled.set(name, new WebAssembly.Module(readFileSync(join(__dirname, 'generated', name))))
  }
  return compiled.get(name)
}

exports = module.exports = sessions(modules)
exports.Cookie = Cookie
exports.MemoryStore = MemoryStore
exports.OptionsError = OptionsError
exports.Session = Session
exports.Store = Store
