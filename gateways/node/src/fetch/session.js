// The session as fetch handlers see it.

export class Session {
  /** Whether the application has read anything that depends on the cookie or its absence. */
  #isRead = false
  #id
  #origin
  #expires
  /** The session's JSON text; parsed when it is first needed. */
  #text
  #view
  /** The data as the application sees it. */
  #data
  /** Every stored key's JSON text, as JavaScript writes it. */
  #stored
  #action = 'keep'
  #cookieEdits = []

  /** `stored`: what the store returned for it. */
  constructor ({ visit, origin, text }, stored) {
    this.#id = visit.id
    this.#origin = origin
    this.#expires = stored?.expires
    this.#text = text ?? stored.data
  }

  static isRead (session) { return session.#isRead }

  get id () { return this.#seen(this.#id) }
  get origin () { return this.#seen(this.#origin) }
  get isNew () { return this.#seen(this.#origin !== 'loaded') }
  get expires () { return this.#seen(date(this.#expires)) }

  get cookie () {
    this.#read()
    return this.#seen(this.#view)
  }

  get data () {
    this.#read()
    return this.#seen(this.#data)
  }

  #seen (value) {
    this.#isRead = true
    return value
  }

  set data (data) {
    this.#read()
    this.#data = data
  }

  #read () {
    if (this.#data !== undefined) return
    const { cookie, ...data } = JSON.parse(this.#text)
    this.#view = viewOf(cookie)
    this.#data = data
    this.#stored = texts(data)
  }

  get maxAge () { return this.cookie.originalMaxAge }

  set maxAge (millis) {
    if (millis !== null && !(Number.isSafeInteger(millis) && millis >= 0)) {
      throw new TypeError('maxAge must be a whole number of milliseconds, or null')
    }
    this.#read()
    this.#view = { ...this.#view, originalMaxAge: millis }
    this.#cookieEdits.push({ key: 'maxAge', value: JSON.stringify(millis) })
  }

  renew () {
    if (this.#action === 'keep') this.#action = 'renew'
  }

  regenerate () {
    this.data = {}
    this.#action = 'regenerate'
    this.#cookieEdits = []
  }

  unset () {
    // The stored session was already discarded.
    this.#action = this.#action === 'regenerate' || this.#action === 'destroy' ? 'destroy' : 'unset'
  }

  destroy () {
    this.data = {}
    this.#action = 'destroy'
  }

  /** Returns the application's change, in the contract's terms. */
  change () {
    return { action: this.#action, data: this.#changeOfData(), cookie: this.#cookieEdits }
  }

  // Unchanged keys are omitted, so that they stay as they are, byte for byte, or as other requests
  // changed them.
  #changeOfData () {
    if (this.#action === 'regenerate') return { tag: 'whole', val: JSON.stringify(this.#data) }
    if (this.#data === undefined) return { tag: 'nothing' }
    const now = texts(this.#data)
    const edits = []
    for (const key of this.#stored.keys()) {
      if (!now.has(key)) edits.push({ key, value: undefined })
    }
    for (const [key, value] of now) {
      if (this.#stored.get(key) !== value) edits.push({ key, value })
    }
    const wrong = edits.find(({ key }) => !key.isWellFormed())
    if (wrong) throw new TypeError('a key of the session has half of a surrogate pair, which cannot be stored')
    return edits.length === 0 ? { tag: 'nothing' } : { tag: 'edits', val: edits }
  }

  // Omits the identifier and the data: both are secrets.
  toJSON () { return {} }
}

/** Returns the JSON text of every key that has one. */
function texts (data) {
  const texts = new Map()
  for (const [key, value] of Object.entries(data)) {
    const text = JSON.stringify(value)
    if (text !== undefined) texts.set(key, text)
  }
  return texts
}

/** Returns the cookie of a session, which any program may have written, as the application sees it. */
function viewOf ({ originalMaxAge, expires, path, domain, httpOnly, secure, sameSite, partitioned, priority }) {
  return {
    originalMaxAge: originalMaxAge ?? null,
    expires: date(expires ? Date.parse(expires) : undefined),
    path,
    domain,
    httpOnly: Boolean(httpOnly),
    secure: Boolean(secure),
    sameSite: sameSite === true ? 'strict' : named(sameSite),
    partitioned: Boolean(partitioned),
    priority: named(priority)
  }
}

/** Returns the name of a choice, which may have any case. */
const named = value => typeof value === 'string' && value ? value.toLowerCase() : undefined

const date = millis => millis === undefined || Number.isNaN(millis) ? null : new Date(Number(millis))
