// The same where there is node:fs: Node, Bun, Deno. The core modules are read from their files.
import { readFileSync } from 'node:fs'
import { modules as names } from '../../generated/about.js'
import { withSession as general } from './index.js'

export { MemoryStore, OptionsError, Refused } from './index.js'

let compiled
function modules () {
  compiled ??= Object.fromEntries(names.map(name =>
    [name, new WebAssembly.Module(readFileSync(new URL(`../../generated/${name}`, import.meta.url)))]))
  return compiled
}

export const withSession = (handler, options) => general(handler, { modules, ...options })
