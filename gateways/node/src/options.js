// Converts JavaScript options for the component.
import { OptionsError } from './engine.js'

const encoder = new TextEncoder()

const isWhole = value => Number.isSafeInteger(value) && value >= 0

const boolean = { is: 'true or false', read: value => typeof value === 'boolean' ? value : undefined }
const text = { is: 'a string', read: value => typeof value === 'string' ? value : undefined }
const count = { is: 'a whole number', read: value => isWhole(value) && value < 2 ** 32 ? value : undefined }
const seconds = { is: 'a whole number', read: value => isWhole(value) ? BigInt(value) : undefined }
const lifetime = { is: 'a number', read: value => typeof value === 'number' ? value : undefined }
const date = {
  is: 'a Date',
  read: value => value instanceof Date && isWhole(value.getTime()) ? BigInt(value.getTime()) : undefined
}
const choice = (...names) => ({
  is: `one of ${names.map(name => `"${name}"`).join(', ')}`,
  read: value => names.find(name => name === (typeof value === 'string' ? value.toLowerCase() : value))
})

const COOKIE = {
  path: text,
  domain: text,
  maxAge: lifetime,
  expires: date,
  httpOnly: boolean,
  secure: {
    is: 'true, false or "auto"',
    read: value => ({ true: 'always', false: 'never', auto: 'auto' })[value]
  },
  sameSite: {
    is: '"strict", "lax", "none" or "auto"',
    read: value => value === true ? 'strict' : choice('strict', 'lax', 'none', 'auto').read(value)
  },
  partitioned: boolean,
  priority: choice('low', 'medium', 'high')
}

const OPTIONS = {
  name: text,
  allowWeakSecret: boolean,
  resave: boolean,
  saveUninitialized: boolean,
  rolling: boolean,
  unset: choice('keep', 'destroy'),
  proxy: boolean,
  ttl: seconds,
  touchAfter: seconds,
  conflicts: choice('merge', 'overwrite'),
  onStoreError: choice('deny', 'anonymous'),
  maxSessionBytes: count
}

/** Returns `defaults`, overridden by `given`. */
export function toOptions (given, defaults) {
  const problems = []
  const read = (known, values, target, prefix) => {
    for (const [name, value] of Object.entries(values)) {
      if (value === undefined || value === null) continue
      const kind = known[name]
      if (kind === undefined) {
        problems.push({ name: prefix + name, message: 'is not an option' })
        continue
      }
      // `sameSite: false` omits the attribute.
      const converted = name === 'sameSite' && value === false ? null : kind.read(value)
      if (converted === undefined) problems.push({ name: prefix + name, message: `is not ${kind.is}` })
      else target[name] = converted ?? undefined
    }
  }
  const { secret, cookie = {}, ...others } = given
  const options = { ...defaults, cookie: { ...defaults.cookie }, secrets: secrets(secret, problems) }
  read(OPTIONS, others, options, '')
  read(COOKIE, cookie, options.cookie, 'cookie.')
  if (problems.length > 0) throw new OptionsError(problems)
  return options
}

function secrets (given, problems) {
  if (!given) return []
  const list = [given].flat()
  const isNone = secret => secret === undefined || secret === null
  // An old secret that is no longer set is ignored.
  if (isNone(list[0])) problems.push({ name: 'secret', message: `is a list whose first entry, which signs, is ${list[0]}` })
  return list.filter(secret => !isNone(secret)).map(secret => {
    if (typeof secret === 'string') return encoder.encode(secret)
    if (secret instanceof ArrayBuffer) return new Uint8Array(secret)
    if (ArrayBuffer.isView(secret)) return new Uint8Array(secret.buffer, secret.byteOffset, secret.byteLength)
    // A Node KeyObject of type `secret`.
    if (typeof secret?.export === 'function') return new Uint8Array(secret.export())
    problems.push({ name: 'secret', message: 'is not a string, bytes or a list of these' })
    return new Uint8Array()
  })
}
