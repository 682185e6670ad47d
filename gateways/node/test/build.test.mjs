// What is tested here was built from the component that all gateways use, and needs no more
// imports.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { execFileSync } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { sha256, modules } from '../generated/about.js'
import { instantiate } from '../generated/session.js'

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

/** A new engine, and a cookie that it signs with this secret. */
async function signedWith (secret) {
  const core = Object.fromEntries(await Promise.all(modules.map(async name =>
    [name, await WebAssembly.compile(await readFile(path(`../generated/${name}`)))])))
  const { engine } = instantiate(name => core[name], {
    'wasi:clocks/wall-clock': { now: () => ({ seconds: 1_900_000_000n, nanoseconds: 0 }) },
    'wasi:random/random': { getRandomU64: () => 7n }
  })
  engine.configure([{ name: 'secret', value: { tag: 'bytes', val: secret } }])
  const cookies = new TextEncoder().encode('a=b').buffer
  const { visit } = engine.begin({ cookies, path: '/', tls: false, secure: false }).val
  const data = { tag: 'edits', val: [{ key: 'a', value: '1' }] }
  return engine.finish(visit, undefined, { action: 'keep', data, cookie: [] }).outcome.setCookie
}

test('bytes are read from every kind of buffer, and nothing else counts as bytes', async () => {
  const secret = new TextEncoder().encode('a secret for tests, long enough to sign with')
  const shifted = new Uint8Array([0, 0, ...secret]).subarray(2)
  const expected = await signedWith(secret)
  for (const same of [shifted, secret.buffer, new DataView(secret.buffer), Buffer.from(secret)]) {
    assert.equal(await signedWith(same), expected)
  }
  for (const wrong of ['a secret for tests, long enough to sign with', [...secret], undefined]) {
    await assert.rejects(signedWith(wrong), TypeError)
  }
})
