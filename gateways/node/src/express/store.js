// The base class of stores, and the memory store, like those of express-session. They are functions
// because existing stores call them without `new`.
import { EventEmitter } from 'node:events'
import { inherits } from 'node:util'
import { inflate, inflateCookie } from './session.js'

export function Store () {
  EventEmitter.call(this)
}

inherits(Store, EventEmitter)

Store.prototype.regenerate = function regenerate (req, callback) {
  this.destroy(req.sessionID, error => {
    this.generate(req)
    callback(error)
  })
}

Store.prototype.load = function load (id, callback) {
  this.get(id, (error, found) => {
    if (error) return callback(error)
    if (!found) return callback()
    callback(null, this.createSession({ sessionID: id, sessionStore: this }, found))
  })
}

Store.prototype.createSession = function createSession (req, found) {
  req.session = inflate(req, found)
  return req.session
}

/**
 * Returns a session written by the component in the form that stores expect: a document, not
 * `req.session`.
 */
export function revive (text) {
  const document = JSON.parse(text)
  document.cookie = inflateCookie(document.cookie)
  return document
}

/** Keeps sessions in this process's memory, without a limit: for development. */
export function MemoryStore () {
  Store.call(this)
  this.sessions = Object.create(null)
}

inherits(MemoryStore, Store)

MemoryStore.prototype.get = function get (id, callback) {
  setImmediate(callback, null, find(this, id))
}

MemoryStore.prototype.set = function set (id, session, callback) {
  this.sessions[id] = JSON.stringify(session)
  if (callback) setImmediate(callback)
}

MemoryStore.prototype.touch = function touch (id, session, callback) {
  const found = find(this, id)
  if (found) {
    found.cookie = session.cookie
    this.sessions[id] = JSON.stringify(found)
  }
  if (callback) setImmediate(callback)
}

MemoryStore.prototype.destroy = function destroy (id, callback) {
  delete this.sessions[id]
  if (callback) setImmediate(callback)
}

MemoryStore.prototype.clear = function clear (callback) {
  this.sessions = Object.create(null)
  if (callback) setImmediate(callback)
}

MemoryStore.prototype.all = function all (callback) {
  const sessions = Object.create(null)
  for (const id of Object.keys(this.sessions)) {
    const found = find(this, id)
    if (found) sessions[id] = found
  }
  if (callback) setImmediate(callback, null, sessions)
}

MemoryStore.prototype.length = function length (callback) {
  this.all((error, sessions) => error ? callback(error) : callback(null, Object.keys(sessions).length))
}

function find (store, id) {
  const text = store.sessions[id]
  if (!text) return undefined
  const session = JSON.parse(text)
  const expires = session.cookie?.expires
  if (expires && new Date(expires) <= Date.now()) {
    delete store.sessions[id]
    return undefined
  }
  return session
}
