// The types: next to express-session's, with old module resolution, and without Express's.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const path = relative => fileURLToPath(new URL(relative, import.meta.url))
const TYPESCRIPT_5 = path('../node_modules/typescript-5/bin/tsc')
const TYPESCRIPT_7 = path('../node_modules/typescript/bin/tsc')

function compile (compiler, ...given) {
  const { stdout, stderr, status } = spawnSync(process.execPath, [compiler, ...given], { encoding: 'utf8' })
  assert.equal(`${stdout}${stderr}`, '')
  assert.equal(status, 0)
}

for (const types of ['theirs', 'ours']) {
  test(`an application compiles, and mistakes do not, with ${types}`, () => {
    compile(TYPESCRIPT_7, '-p', path(`types/application/${types}.json`))
  })
}

// An application with edge-session as published, and these packages.
async function installed (t, packages, files) {
  const root = await mkdtemp(join(tmpdir(), 'edge-session-types-'))
  t.after(() => rm(root, { recursive: true }))
  const modules = join(root, 'node_modules')
  await mkdir(join(modules, 'edge-session'), { recursive: true })
  for (const name of ['package.json', 'types']) await cp(path(`../${name}`), join(modules, 'edge-session', name), { recursive: true })
  for (const name of packages) {
    await mkdir(dirname(join(modules, name)), { recursive: true })
    await symlink(path(`../node_modules/${name}`), join(modules, name))
  }
  for (const [name, text] of Object.entries(files)) await writeFile(join(root, name), text)
  return root
}

const SUBPATHS = `
import session = require('edge-session')
import Cookie = require('edge-session/session/cookie')
import MemoryStore = require('edge-session/session/memory')
import Session = require('edge-session/session/session')
import Store = require('edge-session/session/store')
const memory: Store = new MemoryStore()
const cookie: session.Cookie = new Cookie({ maxAge: 1 })
const own: Session | undefined = undefined
// @ts-expect-error a text
session({ secret: 7 })
console.log(memory, cookie, own)
`
const FETCH = `
import { withSession, MemoryStore, type Session } from 'edge-session/fetch'
import { MongoStore } from 'edge-session/mongodb'
const stores = [new MemoryStore(), new MongoStore(null as any)]
const handle = withSession<{ n: number }>((request, session: Session<{ n: number }>) => {
  // @ts-expect-error a number
  session.data.n = 'text'
  return new Response(request.url)
}, { secret: 'a', store: stores[0] })
export { handle }
`

const STRICT = ['--strict', '--noEmit', '--target', 'es2022', '--lib', 'es2022,dom', '--types', 'node']
const WAYS = [
  ['node10', [TYPESCRIPT_5, '--skipLibCheck', '--module', 'commonjs', '--moduleResolution', 'node10'], ['a.ts', 'b.ts']],
  ['node16', [TYPESCRIPT_7, '--module', 'node16', '--moduleResolution', 'node16'], ['a.cts', 'b.mts']],
  ['nodenext', [TYPESCRIPT_7, '--module', 'nodenext', '--moduleResolution', 'nodenext'], ['a.cts', 'b.mts']],
  ['bundler', [TYPESCRIPT_7, '--module', 'esnext', '--moduleResolution', 'bundler'], ['b.ts']]
]

for (const [way, command, names] of WAYS) {
  test(`all modules have types where they are found as by ${way}`, async t => {
    const root = await installed(t, ['@types/node', '@types/express', 'mongodb'],
      Object.fromEntries(names.map(name => [name, name.startsWith('a') ? SUBPATHS : FETCH])))
    compile(...command, ...STRICT, ...names.map(name => join(root, name)), '--typeRoots', join(root, 'node_modules/@types'))
  })
}

test('without Express\'s types, its requests are anything', async t => {
  const root = await installed(t, ['@types/node'], {
    'a.cts': `
import { createServer } from 'node:http'
import session = require('edge-session')
const middleware = session({ secret: 'a', genid: req => req.anything, cookie: req => ({ path: req.path }) })
createServer((req, res) => middleware(req, res, () => { res.end() }))
// @ts-expect-error a text
session({ secret: 7 })
`
  })
  compile(TYPESCRIPT_7, '--module', 'nodenext', ...STRICT, join(root, 'a.cts'), '--typeRoots', join(root, 'node_modules/@types'))
})
