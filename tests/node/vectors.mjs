// The results of express-session, cookie and cookie-signature for the inputs in the component's
// vectors.json. `node vectors.mjs` checks whether the file has these results; with --write, it adds
// them. To add a vector, write its input only, then run this with --write.
import { readFile, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import cookie from 'cookie'
import { sign, unsign } from 'cookie-signature'
import session from 'express-session'

const require = createRequire(import.meta.url)
const NOW = 1_800_000_000_000
Date.now = () => NOW

const file = fileURLToPath(new URL('../../component/testdata/vectors.json', import.meta.url))
const old = await readFile(file, 'utf8')
const vectors = JSON.parse(old)

const secret = given => typeof given === 'string' ? given : Buffer.from(given.hex, 'hex')
/** Returns the result, or the error. */
const attempt = (act, wrong) => {
  try {
    return act()
  } catch (error) {
    return wrong(error.message)
  }
}
/** Converts to a session's cookie: dates become Dates. */
const withDates = opts => typeof opts?.expires === 'string' && opts.expires.includes('T')
  ? { ...opts, expires: new Date(opts.expires) }
  : opts

const version = name => require(`${name}/package.json`).version
vectors.generatedBy = ['express-session', 'cookie-signature', 'cookie'].map(it => `${it}@${version(it)}`).join(' ') +
  ` node ${process.version}`

for (const it of vectors.sign) {
  it.signed = sign(it.id, secret(it.secret))
  it.cookieValue = encodeURIComponent('s:' + it.signed)
}
for (const it of vectors.unsign) it.ok = unsign(it.v, secret(it.s))
for (const it of vectors.cookieParse) it.parsed = { ...cookie.parse(it.header) }
for (const it of vectors.cookieSerialize) {
  it.result = attempt(() => cookie.serialize('connect.sid', 's:a+b/c.d', withDates(it.opts)), throws => ({ throws }))
}
for (const it of vectors.badName) {
  delete it.r
  delete it.throws
  Object.assign(it, attempt(() => ({ r: cookie.serialize(it.n, 'v') }), throws => ({ throws })))
}
{
  const { loadFilter } = vectors
  const known = JSON.parse(loadFilter.kept)
  const stored = Object.fromEntries(loadFilter.stored.map(key => [key, known[key] ?? 'stored']))
  Object.defineProperty(stored, '__proto__', { value: 'stored', enumerable: true })
  const loaded = new session.MemoryStore().createSession({ sessionStore: {} }, stored)
  loadFilter.kept = JSON.stringify(loaded)
}
for (const it of vectors.json) it.out = JSON.stringify(JSON.parse(it.in))
for (const it of vectors.cookieJSON) {
  const made = new session.Cookie(withDates(it.opts))
  const text = JSON.stringify(made)
  // Its distance from now depends on when this runs.
  it.json = it.opts?.expires === undefined ? text : text.replace(`:${made.originalMaxAge},`, ':<expires-now>,')
}
for (const it of vectors.cookieMaxAge) {
  const made = new session.Cookie({ maxAge: it.maxAge })
  it.json = JSON.stringify(made)
  it.header = made.serialize('n', 'v')
}

const text = JSON.stringify(vectors, null, 1) + '\n'
if (process.argv.includes('--write')) {
  await writeFile(file, text)
} else {
  const before = JSON.parse(old)
  const differs = key => key !== 'generatedBy' && JSON.stringify(vectors[key]) !== JSON.stringify(before[key])
  const wrong = Object.keys(vectors).filter(differs)
  if (wrong.length > 0) console.log(`other answers than vectors.json has: ${wrong.join(', ')}`)
  process.exitCode = wrong.length && 1
}
