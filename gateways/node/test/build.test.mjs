// What is tested here was built from the component that all gateways use, and needs no more
// imports.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { execFileSync } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { sha256, modules } from '../generated/about.js'

const path = relative => fileURLToPath(new URL(relative, import.meta.url))

test('generated/ is from host/session.wasm', async () => {
  const component = await readFile(path('../../../host/session.wasm'))
  assert.equal(sha256, createHash('sha256').update(component).digest('hex'))
})

test('the component imports the time and randomness, and nothing else', async () => {
  const source = await readFile(path('../generated/session.js'), 'utf8')
  const imported = [...source.matchAll(/imports\["?([^"\]]+)"?\]/g)].map(match => match[1])
  assert.deepEqual(imported.sort(), ['wasi:clocks/wall-clock', 'wasi:random/random'])
  const core = await WebAssembly.compile(await readFile(path(`../generated/${modules[0]}`)))
  const asked = new Set(WebAssembly.Module.imports(core).map(({ module }) => module.replace(/@.*/, '')))
  assert.deepEqual([...asked].sort(), ['wasi:clocks/wall-clock', 'wasi:random/random'])
})

test('the modules of express-session that are imported by themselves are there', () => {
  const script = `
    const session = require('edge-session')
    const names = { cookie: 'Cookie', session: 'Session', store: 'Store', memory: 'MemoryStore' }
    for (const [file, name] of Object.entries(names)) {
      for (const path of [file, file + '.js']) {
        if (require('edge-session/session/' + path) !== session[name]) throw new Error(path)
        require('express-session/session/' + path)
      }
    }
    console.log('same')`
  assert.equal(execFileSync(process.execPath, ['-e', script], { cwd: path('..'), encoding: 'utf8' }), 'same\n')
})

test('both module systems have the same functions', async () => {
  const script = `
    const session = require('edge-session')
    const names = ['Session', 'Store', 'MemoryStore', 'Cookie', 'OptionsError']
    import('edge-session').then(module => {
      if (module.default !== session) throw new Error('default')
      for (const name of names) if (module[name] !== session[name] || !session[name]) throw new Error(name)
      console.log('same')
    })`
  assert.equal(execFileSync(process.execPath, ['-e', script], { cwd: path('..'), encoding: 'utf8' }), 'same\n')
})
