// The component as jco has transpiled it, and a visitor who comes three times, and then with
// a forged cookie: `node main.mjs`.
import { readFileSync } from 'node:fs'
import { instantiate } from '../../../gateways/node/generated/session.js'
import { visit } from './embed.mjs'

const generated = new URL('../../../gateways/node/generated/', import.meta.url)
const module = name => new WebAssembly.Module(readFileSync(new URL(name, generated)))
const now = () => {
  const millis = Date.now()
  return { seconds: BigInt(Math.floor(millis / 1000)), nanoseconds: millis % 1000 * 1e6 }
}
const getRandomU64 = () => crypto.getRandomValues(new BigUint64Array(1))[0]
const imports = { 'wasi:clocks/wall-clock': { now }, 'wasi:random/random': { getRandomU64 } }
const { engine } = instantiate(module, imports)
const secret = { tag: 'bytes', val: Buffer.from('only for this example: 32 bytes or more') }
engine.configure([{ name: 'secret', value: secret }]) // or throws all that is wrong

const sessions = new Map()
let cookie
for (let at = 0; at < 3; at++) {
  const { page, outcome } = visit(engine, sessions, cookie)
  console.log(page)
  cookie = outcome.setCookie?.split(';')[0] ?? cookie
}
console.log(visit(engine, sessions, cookie.replace('s%3A', 's%3Ax')).page)
