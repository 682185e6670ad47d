// express-session's middleware: its options, and the start of a request's session.
import { KeyObject, createHmac, randomBytes } from 'node:crypto'
import { Engine } from '../engine.js'
import { modules } from '../modules.js'
import { OptionsError } from '../options.js'
import { Turns } from '../turns.js'
import { Cookie } from './cookie.js'
import { Session } from './session.js'
import { MemoryStore, Store } from './store.js'
import { Visit, generate } from './visit.js'

export { Cookie, MemoryStore, OptionsError, Session, Store }

const WARNING = 'Warning: the MemoryStore of edge-session is not\n' +
  'designed for a production environment, as it will leak\n' +
  'memory, and will not scale past a single process.'

const own = name => modules()[name]

export function session (given) {
  const settings = new Settings(given ?? {})
  const { store } = settings

  if (process.env.NODE_ENV === 'production' && store instanceof MemoryStore) console.warn(WARNING)

  store.generate = req => generate(settings, req)

  let isStoreReady = true
  store.on('disconnect', () => { isStoreReady = false })
  store.on('connect', () => { isStoreReady = true })

  return function session (req, res, next) {
    if (req.session || !isStoreReady) return next()
    const engine = settings.engine(req)
    if (!engine) return next(new Error('secret option required for sessions'))
    new Visit(settings, engine, req, next).begin(res)
  }
}

/** The options, parsed once. */
class Settings {
  #engines = new Map()
  #sending = new Map()
  #engine
  #hasSecret
  #cookie

  constructor (given) {
    const { secret } = given
    const preset = given.preset ?? 'express'
    const isExpress = /^express$/i.test(preset)
    check(given)
    const cookie = given.cookie || {}
    this.isDynamic = typeof cookie === 'function' || !isExpressible(cookie)
    this.#hasSecret = Boolean(secret)
    this.#engine = new Engine({
      preset,
      name: given.name || given.key || undefined,
      // Without a secret, this engine only checks the other options.
      secret: Array.isArray(secret) ? secret.map(exported) : exported(secret) || randomBytes(32),
      allowWeakSecret: given.allowWeakSecret,
      resave: flag(given, 'resave', isExpress),
      saveUninitialized: flag(given, 'saveUninitialized', isExpress),
      rolling: Boolean(given.rolling),
      unset: given.unset || undefined,
      proxy: typeof given.proxy === 'boolean' ? given.proxy : undefined,
      // If the settings are made for each request, the component only resolves `auto`.
      cookie: this.isDynamic ? { secure: 'auto', sameSite: 'auto' } : expressible(cookie, isExpress),
      conflicts: given.conflicts,
      onStoreError: given.onStoreError,
      maxSessionBytes: given.maxSessionBytes
    }, own)
    // express-session distinguishes settings given as undefined from missing ones.
    const defaults = isExpress ? {} : ofCookie(this.#engine.defaults('safe'))
    const whole = cookie => isExpress ? cookie : { ...defaults, ...defined(cookie ?? {}) }
    this.#cookie = typeof cookie === 'function' ? req => whole(cookie(req)) : whole(cookie)
    const { options } = this.#engine
    this.isExpress = isExpress
    this.merges = options.conflicts === 'merge'
    this.turns = new Turns()
    this.maxSessionBytes = options.maxSessionBytes
    this.unset = options.unset
    this.proxy = options.proxy
    this.name = options.name
    this.resave = options.resave
    this.saveUninitialized = options.saveUninitialized
    this.path = options['cookie.path']
    this.genid = given.genid || undefined
    this.store = given.store || new MemoryStore()
    this.hasTouch = typeof this.store.touch === 'function'
    if (!this.#hasSecret) process.emitWarning('req.secret; provide secret option', 'DeprecationWarning')
  }

  /** Returns the engine for these options, with cookie-parser's secret if they have none. */
  engine (req) {
    if (this.#hasSecret) return this.#engine
    const { secret } = req
    return secret && known(this.#engines, secret, () => this.#engine.with({ secret }))
  }

  /** Returns the same engine, but one that always sends the cookie. */
  sending (engine) {
    return known(this.#sending, engine, () => engine.with({ rolling: true, saveUninitialized: true }))
  }

  /**
   * Returns an identifier, already verified elsewhere, as the cookie value that the component
   * reads.
   */
  signed (engine, id) {
    const signature = createHmac('sha256', engine.secret).update(id).digest('base64').replace(/=+$/, '')
    return `s:${id}.${signature}`
  }

  /** Returns the settings of a request's new cookie, as the application gave them. */
  cookieOptions (req) {
    return typeof this.#cookie === 'function' ? this.#cookie(req) : this.#cookie
  }

  /** Creates the cookie of a new session, with the component's decision about `auto` settings. */
  cookie (req, decided) {
    const options = this.cookieOptions(req)
    const cookie = new Cookie(options)
    if (options.secure === 'auto') cookie.secure = decided.secure
    if (options.sameSite === 'auto') cookie.sameSite = decided.sameSite
    return cookie
  }
}

/** Returns the map's value, which is made if it is missing. */
function known (map, key, make) {
  const value = map.get(key) ?? make()
  map.set(key, value)
  return value
}

/** Throws express-session's own errors for invalid options. */
function check ({ genid, secret, unset, cookie }) {
  if (genid && typeof genid !== 'function') throw new TypeError('genid option must be a function')
  if (unset && unset !== 'destroy' && unset !== 'keep') {
    throw new TypeError('unset option must be "destroy" or "keep"')
  }
  if (Array.isArray(secret) && secret.length === 0) {
    throw new TypeError('secret option array must contain one or more strings')
  }
  // The component would accept some.
  if (cookie?.expires && typeof cookie.expires === 'string') {
    throw new OptionsError([{ name: 'cookie.expires', message: 'is a string, not a Date' }])
  }
}

/** Converts a key for createHmac to one whose bytes can be read. */
const exported = secret => secret instanceof CryptoKey ? KeyObject.from(secret) : secret

function flag (given, name, isExpress) {
  if (given[name] !== undefined) return Boolean(given[name])
  if (isExpress) process.emitWarning(`undefined ${name} option; provide ${name} option`, 'DeprecationWarning')
  return undefined
}

/**
 * Whether the component's options can express the settings: not a date as `maxAge`, or one before
 * 1970.
 */
function isExpressible ({ maxAge, expires }) {
  return !(maxAge instanceof Date) && !(expires instanceof Date && expires < 0)
}

/** Returns the settings for the component's options, as leniently as express-session reads them. */
function expressible (cookie, isExpress) {
  const { path, domain, maxAge, expires, httpOnly, secure, sameSite, partitioned, priority } = cookie
  const truth = value => value === undefined ? undefined : Boolean(value)
  const fixed = {
    // Without a path, the cookie has no Path attribute and applies where `/` does.
    path: path || undefined,
    domain: domain || undefined,
    maxAge: lifetime(maxAge),
    expires: lifetime(expires),
    httpOnly: isExpress && 'httpOnly' in cookie ? Boolean(httpOnly) : truth(httpOnly),
    secure: secure === 'auto' ? secure : truth(secure),
    sameSite: sameSite === undefined ? undefined : sameSite || false,
    partitioned: truth(partitioned),
    priority: priority || undefined
  }
  if (isExpress && 'maxAge' in cookie && 'expires' in cookie) {
    // The last one given takes precedence.
    const names = Object.keys(cookie)
    fixed[names.indexOf('maxAge') > names.indexOf('expires') ? 'expires' : 'maxAge'] = undefined
  }
  // A number is a lifetime, not a date.
  if (Number.isFinite(fixed.expires) && fixed.maxAge === undefined) {
    fixed.maxAge = fixed.expires
    fixed.expires = undefined
  }
  return fixed
}

/** Returns nothing for falsy values other than numbers. */
const lifetime = value => value || typeof value === 'number' ? value : undefined

const defined = object =>
  Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined))

/** Returns a preset's settings of the cookie as an application would give them. */
const ofCookie = defaults => Object.fromEntries(Object.entries(defaults)
  .filter(([name, value]) => name.startsWith('cookie.') && value !== undefined)
  .map(([name, value]) => [name.slice('cookie.'.length), value]))
