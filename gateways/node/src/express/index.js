// express-session's middleware: its options, and where a request's session begins.
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

/** The options, read once. */
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
    // Where settings are made for each request, the component only says what `auto` means.
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
    // To express-session, what is given as undefined is given.
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

  /** The component with these options, and with cookie-parser's secret where they have none. */
  engine (req) {
    return this.#engines.get('') ?? this.#engines.get(req.secret) ??
      (req.secret && this.#open(req.secret, toOptions({ secret: req.secret }, this.#options)))
  }

  /** The same component, which sends the cookie in any case. */
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

  /** An identifier, whose signature somebody else has seen, as the cookie that the component reads. */
  signed (engine, id) {
    const signature = createHmac('sha256', this.#keys.get(engine)).update(id).digest('base64').replace(/=+$/, '')
    return `s:${id}.${signature}`
  }

  /** The settings of a request's new cookie, as the application gave them. */
  cookieOptions (req) {
    return typeof this.#cookie === 'function' ? this.#cookie(req) : this.#cookie
  }

  /** The cookie of a new session, which is as the component sees it. */
  cookie (req, view) {
    const options = this.cookieOptions(req)
    const cookie = new Cookie(options)
    if (options.secure === 'auto') cookie.secure = view.secure
    if (options.sameSite === 'auto') cookie.sameSite = view.sameSite
    return cookie
  }
}

/** express-session's own words for what it refuses. */
function check ({ genid, secret, unset }) {
  if (genid && typeof genid !== 'function') throw new TypeError('genid option must be a function')
  if (unset && unset !== 'destroy' && unset !== 'keep') {
    throw new TypeError('unset option must be "destroy" or "keep"')
  }
  if (Array.isArray(secret) && secret.length === 0) {
    throw new TypeError('secret option array must contain one or more strings')
  }
}

/** What createHmac takes for a key, as one that can be read. */
const exported = secret => secret instanceof CryptoKey ? KeyObject.from(secret) : secret

function flag (given, name, isExpress) {
  if (given[name] !== undefined) return Boolean(given[name])
  if (isExpress) process.emitWarning(`undefined ${name} option; provide ${name} option`, 'DeprecationWarning')
  return undefined
}

/** Whether the component's options can have these settings: not a date as `maxAge`, or one before 1970. */
function isExpressible ({ maxAge, expires }) {
  return !(maxAge instanceof Date) && !(expires instanceof Date && expires < 0)
}

/** The settings for the component's options, read as loosely as express-session reads them. */
function expressible (cookie, isExpress) {
  const { path, domain, maxAge, expires, httpOnly, secure, sameSite, partitioned, priority } = cookie
  const truth = value => value === undefined ? undefined : Boolean(value)
  const fixed = {
    // Without one the cookie has none, and covers what `/` covers.
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
    // The last one that was given counts.
    const names = Object.keys(cookie)
    fixed[names.indexOf('maxAge') > names.indexOf('expires') ? 'expires' : 'maxAge'] = undefined
  }
  // A number is no date, but a lifetime.
  if (Number.isFinite(fixed.expires) && fixed.maxAge === undefined) {
    fixed.maxAge = fixed.expires
    fixed.expires = undefined
  }
  return fixed
}

/** None where JavaScript sees nothing, but for 0. */
const lifetime = value => value || typeof value === 'number' ? value : undefined

const defined = object =>
  Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined))

/** Settings that a preset has, as an application would give them. */
const asGiven = ({ secure, ...others }) =>
  defined({ ...others, secure: { always: true, never: false, auto: 'auto' }[secure] })
