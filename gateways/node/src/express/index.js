// express-session's middleware: its options, and the start of a request's session.
import { KeyObject, createHmac } from 'node:crypto'
import { Engine, OptionsError, defaults } from '../engine.js'
import { modules } from '../modules.js'
import { toOptions } from '../options.js'
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
  #keys = new Map()
  #options
  #cookie

  constructor (given) {
    const { preset = 'express' } = given
    const isExpress = preset === 'express'
    check(given)
    const options = defaults(preset, own)
    const store = given.store || new MemoryStore()
    const cookie = given.cookie || {}
    this.isDynamic = typeof cookie === 'function' || !isExpressible(cookie)
    // If the settings are made for each request, the component only resolves `auto`.
    const fixed = this.isDynamic ? { secure: 'auto', sameSite: 'auto' } : expressible(cookie, isExpress)
    this.#options = toOptions({
      name: given.name || given.key || undefined,
      secret: Array.isArray(given.secret) ? given.secret.map(exported) : exported(given.secret),
      allowWeakSecret: given.allowWeakSecret,
      resave: flag(given, 'resave', isExpress),
      saveUninitialized: flag(given, 'saveUninitialized', isExpress),
      rolling: Boolean(given.rolling),
      unset: given.unset || undefined,
      proxy: typeof given.proxy === 'boolean' ? given.proxy : undefined,
      cookie: fixed,
      conflicts: given.conflicts,
      onStoreError: given.onStoreError,
      maxSessionBytes: given.maxSessionBytes
    }, options)
    // express-session distinguishes settings given as undefined from missing ones.
    const whole = isExpress ? cookie => cookie : cookie => ({ ...asGiven(options.cookie), ...defined(cookie ?? {}) })
    this.#cookie = typeof cookie === 'function' ? req => whole(cookie(req)) : whole(cookie)
    this.isExpress = isExpress
    this.merges = this.#options.conflicts === 'merge'
    this.turns = new Turns()
    this.maxSessionBytes = this.#options.maxSessionBytes
    this.unset = this.#options.unset
    this.proxy = this.#options.proxy
    this.name = this.#options.name
    this.resave = this.#options.resave
    this.saveUninitialized = this.#options.saveUninitialized
    this.path = this.#options.cookie.path
    this.genid = given.genid || undefined
    this.store = store
    this.hasTouch = typeof store.touch === 'function'
    if (this.#options.secrets.length > 0) this.#open('', this.#options)
    else process.emitWarning('req.secret; provide secret option', 'DeprecationWarning')
  }

  /** Returns the engine for these options, with cookie-parser's secret if they have none. */
  engine (req) {
    return this.#engines.get('') ?? this.#engines.get(req.secret) ??
      (req.secret && this.#open(req.secret, toOptions({ secret: req.secret }, this.#options)))
  }

  /** Returns the same engine, but one that always sends the cookie. */
  sending (engine) {
    const known = this.#sending.get(engine) ?? engine.with({ rolling: true, saveUninitialized: true })
    this.#sending.set(engine, known)
    return known
  }

  #open (key, options) {
    const engine = new Engine(options, own)
    this.#engines.set(key, engine)
    this.#keys.set(engine, options.secrets[0])
    return engine
  }

  /**
   * Returns an identifier, already verified elsewhere, as the cookie value that the component
   * reads.
   */
  signed (engine, id) {
    const signature = createHmac('sha256', this.#keys.get(engine)).update(id).digest('base64').replace(/=+$/, '')
    return `s:${id}.${signature}`
  }

  /** Returns the settings of a request's new cookie, as the application gave them. */
  cookieOptions (req) {
    return typeof this.#cookie === 'function' ? this.#cookie(req) : this.#cookie
  }

  /** Creates the cookie of a new session, with the component's view of `auto` settings. */
  cookie (req, view) {
    const options = this.cookieOptions(req)
    const cookie = new Cookie(options)
    if (options.secure === 'auto') cookie.secure = view.secure
    if (options.sameSite === 'auto') cookie.sameSite = view.sameSite
    return cookie
  }
}

/** Throws express-session's own errors for invalid options. */
function check ({ genid, secret, unset }) {
  if (genid && typeof genid !== 'function') throw new TypeError('genid option must be a function')
  if (unset && unset !== 'destroy' && unset !== 'keep') {
    throw new TypeError('unset option must be "destroy" or "keep"')
  }
  if (Array.isArray(secret) && secret.length === 0) {
    throw new TypeError('secret option array must contain one or more strings')
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

/** Returns a preset's settings as an application would give them. */
const asGiven = ({ secure, ...others }) =>
  defined({ ...others, secure: { always: true, never: false, auto: 'auto' }[secure] })
