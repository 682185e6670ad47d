// The session as fetch handlers see it.

export class Session {
  /** Whether the application has read anything that depends on the cookie or its absence. */
  #isRead = false
  #id
  #origin
  #view
  #expires
  #text
  /** The data as the application sees it; undefined until it is read. */
  #data
  /** Every stored key's JSON text, as JavaScript writes it. */
  #stored
  #action = 'keep'
  #cookieEdits = []

  constructor ({ exchange, data, cookie, expires }) {
    this.#id = exchange.id
    this.#origin = exchange.origin
    this.#text = data
    this.#view = { ...cookie, expires: date(cookie.expires), originalMaxAge: cookie.originalMaxAge ?? null }
    this.#expires = date(expires)
  }

  static isRead (session) { return session.#isRead }

  get id () { return this.#seen(this.#id) }
  get origin () { return this.#seen(this.#origin) }
  get isNew () { return this.#seen(this.#origin !== 'loaded') }
  get cookie () { return this.#seen(this.#view) }
  get expires () { return this.#seen(this.#expires) }

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
    this.#data = JSON.parse(this.#text)
    this.#stored = texts(this.#data)
  }

  get maxAge () { return this.#seen(this.#view.originalMaxAge) }

  set maxAge (millis) {
    if (millis !== null && !(Number.isSafeInteger(millis) && millis >= 0)) {
      throw new TypeError('maxAge must be a whole number of milliseconds, or null')
    }
    this.#view = { ...this.#view, originalMaxAge: millis }
    this.#cookieEdits.push({ tag: 'max-age', val: millis ?? undefined })
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

const date = millis => millis === undefined ? null : new Date(Number(millis))
