// Converts JavaScript options to the component's settings, and names to JavaScript's spelling. What
// an option is, and which values it has, the component knows.

const encoder = new TextEncoder()

/** The options are not valid: `problems` lists everything that is wrong. */
export class OptionsError extends TypeError {
  constructor (problems) {
    super(['the session options cannot be used:',
      ...problems.map(({ name, message }) => `  ${name}: ${message}`)].join('\n'))
    this.name = 'OptionsError'
    this.problems = problems
  }
}

/** Converts a name, or all of `names` in a text: `cookie.maxAge`, and `ttl` for `store.ttl`. */
export const camelCase = name =>
  name.replace(/^store\./, '').replace(/_([a-z])/g, (_, letter) => letter.toUpperCase())
export const inCamelCase = (text, names) =>
  text.replace(/[a-z_]+(?:\.[a-z_]+)?/g, word => names.has(word) ? camelCase(word) : word)

/** Returns the settings for all options that are given. */
export function toSettings ({ secret, cookie, ...others }) {
  // The component refuses what is no group of options.
  if (!isNone(cookie) && typeof cookie !== 'object') {
    return [...toSettings({ secret, ...others }), { name: 'cookie', value: json(cookie) }]
  }
  const { expires, ...settings } = cookie ?? {}
  // A date has a JSON form only up to the year 9999.
  const given = { ...settings, expires: expires instanceof Date ? expires.getTime() : expires }
  const ofCookie = Object.entries(given).map(([name, value]) => [`cookie.${name}`, value])
  const list = [...Object.entries(others), ...ofCookie].filter(([, value]) => !isNone(value))
  return [...list.map(([name, value]) => ({ name, value: json(value) })), ...secrets(secret)]
}

const isNone = value => value === undefined || value === null

/**
 * Without a JSON form (a function, NaN), the text is empty, which is not JSON: the component refuses
 * it.
 */
function json (value) {
  let text
  try {
    text = JSON.stringify(value)
  } catch {}
  return { tag: 'json', val: text === undefined || text === 'null' ? '' : text }
}

function secrets (given) {
  if (!given) return []
  const list = [given].flat()
  if (isNone(list[0])) {
    throw new OptionsError([{ name: 'secret', message: `is a list whose first entry, which signs, is ${list[0]}` }])
  }
  // An old secret that is no longer set is ignored.
  return list.filter(secret => !isNone(secret)).map(secret => {
    const val = bytes(secret)
    return { name: 'secret', value: val === undefined ? json(secret) : { tag: 'bytes', val } }
  })
}

function bytes (secret) {
  if (typeof secret === 'string') return encoder.encode(secret)
  if (secret instanceof ArrayBuffer) return new Uint8Array(secret)
  if (ArrayBuffer.isView(secret)) return new Uint8Array(secret.buffer, secret.byteOffset, secret.byteLength)
  // A Node KeyObject of type `secret`.
  if (typeof secret.export === 'function') return new Uint8Array(secret.export())
  return undefined
}
