// express-session's Cookie: what `req.session.cookie` and stores see. The component writes the
// cookies sent to browsers; `serialize` is for applications only.
import { serialize } from 'cookie'

// An assignment reads the clock once, so a lifetime keeps the value that was set.
export class Cookie {
  constructor (options) {
    this.path = '/'
    this._expires = null
    this.originalMaxAge = null
    this.httpOnly = true
    if (!options) return
    if (typeof options !== 'object') throw new TypeError('argument options must be a object')
    for (const key in options) {
      if (key !== 'data') this[key] = options[key]
    }
    this.originalMaxAge ??= this.maxAge
  }

  get expires () { return this._expires }

  set expires (date) {
    this._expires = date
    this.originalMaxAge = this.maxAge
  }

  get maxAge () {
    return this._expires instanceof Date ? this._expires.valueOf() - Date.now() : this._expires
  }

  set maxAge (ms) {
    if (ms && typeof ms !== 'number' && !(ms instanceof Date)) {
      throw new TypeError('maxAge must be a number or Date')
    }
    if (typeof ms === 'number') {
      const now = Date.now()
      this._expires = new Date(now + ms)
      this.originalMaxAge = this._expires.valueOf() - now
    } else {
      this.expires = ms
    }
  }

  get data () {
    return {
      originalMaxAge: this.originalMaxAge,
      partitioned: this.partitioned,
      priority: this.priority,
      expires: this._expires,
      secure: this.secure,
      httpOnly: this.httpOnly,
      domain: this.domain,
      path: this.path,
      sameSite: this.sameSite
    }
  }

  serialize (name, value) { return serialize(name, value, this.data) }

  toJSON () { return this.data }
}

const NONE = []

// Converts each setting to one that the component accepts.
const SETTINGS = {
  originalMaxAge: lifetime,
  path: value => value || '',
  domain: value => value || null,
  httpOnly: Boolean,
  secure: Boolean,
  sameSite: value => value === true ? 'strict' : choice(['strict', 'lax', 'none'], 'sameSite', value),
  partitioned: Boolean,
  priority: value => choice(['low', 'medium', 'high'], 'priority', value)
}

/** Copies the settings, for comparison with later ones or with the component's. */
export function settings (cookie) {
  return {
    originalMaxAge: cookie.originalMaxAge ?? undefined,
    path: cookie.path,
    domain: cookie.domain,
    httpOnly: cookie.httpOnly,
    secure: cookie.secure,
    sameSite: cookie.sameSite,
    partitioned: cookie.partitioned,
    priority: cookie.priority
  }
}

/**
 * Returns the assignments since the settings were `before`, as the contract's edits. Throws
 * express-session's error for a setting that no cookie can have.
 */
export function edits (before, cookie) {
  const now = settings(cookie)
  if (isSame(before, now)) return NONE
  const list = []
  for (const name in now) {
    if (now[name] === before[name]) continue
    const value = SETTINGS[name](now[name])
    if (name === 'originalMaxAge') list.push({ key: 'maxAge', value: JSON.stringify(value) })
    // A missing setting equals a false one.
    else if (value !== (before[name] || SETTINGS[name](undefined))) list.push({ key: name, value: JSON.stringify(value) })
  }
  return list
}

// Runs for nearly every request, and is faster than a loop over names.
function isSame (a, b) {
  return a.originalMaxAge === b.originalMaxAge && a.path === b.path && a.domain === b.domain &&
    a.httpOnly === b.httpOnly && a.secure === b.secure && a.sameSite === b.sameSite &&
    a.partitioned === b.partitioned && a.priority === b.priority
}

function choice (names, option, value) {
  if (!value) return null
  const name = String(value).toLowerCase()
  if (!names.includes(name)) throw new TypeError(`option ${option} is invalid`)
  return name
}

function lifetime (maxAge) {
  // For example `false`.
  if (!maxAge && typeof maxAge !== 'number') return null
  if (!Number.isFinite(maxAge)) throw new TypeError('option expires is invalid')
  return maxAge
}
