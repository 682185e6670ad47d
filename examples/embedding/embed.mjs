// Visits, counted by session.wasm as jco has transpiled it: `node embed.mjs`.
import { readFileSync } from 'node:fs'
import { instantiate } from '../../gateways/node/generated/session.js'

const file = name => readFileSync(new URL(`../../gateways/node/generated/${name}`, import.meta.url))
const now = () => {
  const millis = Date.now()
  return { seconds: BigInt(Math.floor(millis / 1000)), nanoseconds: millis % 1000 * 1e6 }
}
const getRandomU64 = () => crypto.getRandomValues(new BigUint64Array(1))[0]
const imports = { 'wasi:clocks/wall-clock': { now }, 'wasi:random/random': { getRandomU64 } }
const { defaults, open } = instantiate(name => new WebAssembly.Module(file(name)), imports).engine
const bytes = text => new TextEncoder().encode(text)
const secrets = [bytes('only for this example: 32 bytes or more')]
const engine = open({ ...defaults('safe'), secrets }) // or throws all that is wrong

// The five store operations, on a map.
const sessions = new Map()
function perform ({ tag, val }, id, known) {
  const found = sessions.get(id)?.expires > Date.now() ? sessions.get(id) : undefined
  if (tag === 'load') known.loaded = found
  if (tag === 'load') return found ? 'found' : 'missing'
  if (tag === 'create' && found) return 'taken'
  const onlyKnown = val === true || val.onlyKnown
  if (!found && (onlyKnown || tag === 'touch' || tag === 'delete')) return 'missing'
  if (onlyKnown && found.data !== (known.current ?? known.loaded).data) {
    known.current = found
    return 'conflict'
  }
  if (tag === 'delete') sessions.delete(id)
  else sessions.set(id, tag === 'touch' ? { ...found, expires: val } : val.content ?? val)
  return 'done'
}

// The loop, up to `ready` or `done`.
function run (step, known, change) {
  while (step.tag === 'store') {
    const { request, exchange, onDone } = step.val
    const tag = perform(request, exchange.id, known)
    if (tag === 'done' && onDone) return onDone
    step = engine.resume(exchange, known, change, { tag })
  }
  return step.val
}

// One request, from its Cookie header to its Set-Cookie.
function visit (cookie) {
  const known = {}
  const request = { cookies: cookie ? [bytes(cookie)] : [], path: '/', tls: false, secure: false }
  const { exchange, data } = run(engine.begin(request), known)
  const visits = (JSON.parse(data).visits ?? 0) + 1
  const edits = [{ key: 'visits', value: JSON.stringify(visits) }]
  const change = { action: 'keep', data: { tag: 'edits', val: edits }, cookie: [] }
  const { setCookie } = run(engine.finish(exchange, known, change), known, change)
  return { visits, origin: exchange.origin, cookie: setCookie?.split(';')[0] ?? cookie }
}

let visitor = {}
for (let at = 0; at < 3; at++) {
  visitor = visit(visitor.cookie)
  console.log(visitor.visits)
}
console.log(visit(visitor.cookie.replace('s%3A', 's%3Ax')).origin) // forged
