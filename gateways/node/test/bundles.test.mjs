// The output of bundlers runs without any other files.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { build } from 'esbuild'
import webpack from 'webpack'

const require = createRequire(import.meta.url)
const path = relative => fileURLToPath(new URL(relative, import.meta.url))

async function run (t, name, text) {
  const directory = await mkdtemp(join(tmpdir(), 'edge-session-bundle-'))
  t.after(() => rm(directory, { recursive: true }))
  const file = join(directory, name)
  await writeFile(file, text)
  return execFileSync(process.execPath, [file], { cwd: directory, encoding: 'utf8' })
}

const bundled = async (entry, options) => {
  const { outputFiles } = await build({ entryPoints: [path(`bundles/${entry}`)], bundle: true, write: false, logLevel: 'silent', ...options })
  assert.equal(outputFiles.length, 1)
  return outputFiles[0].text
}

const BUNDLES = [
  ['drop-in.cjs', { platform: 'node', format: 'cjs' }, 'out.cjs'],
  ['drop-in.cjs', { platform: 'node', format: 'cjs', minify: true }, 'out.cjs'],
  ['fetch.mjs', { platform: 'node', format: 'esm' }, 'out.mjs'],
  ['fetch.mjs', { platform: 'browser', format: 'esm', minify: true }, 'out.mjs'],
  ['fetch.mjs', { platform: 'neutral', format: 'esm' }, 'out.mjs']
]
for (const [entry, options, name] of BUNDLES) {
  test(`esbuild: ${entry}, ${JSON.stringify(options)}`, async t => {
    assert.equal(await run(t, name, await bundled(entry, options)), '2 true\n')
  })
}

const WEBPACKS = [
  ['drop-in.cjs', 'out.cjs', { target: 'node' }],
  ['fetch.mjs', 'out.mjs', { target: 'node', experiments: { outputModule: true } }],
  ['fetch.mjs', 'out.mjs', { target: ['web', 'es2023'], experiments: { outputModule: true } }]
]
for (const [entry, name, options] of WEBPACKS) {
  test(`webpack: ${entry} for ${options.target}`, async t => {
    const directory = await mkdtemp(join(tmpdir(), 'edge-session-webpack-'))
    t.after(() => rm(directory, { recursive: true }))
    const output = { path: directory, filename: name, ...(name.endsWith('.mjs') && { module: true }) }
    const compiler = webpack({ mode: 'production', entry: path(`bundles/${entry}`), output, ...options })
    const stats = await promisify(compiler.run.bind(compiler))()
    assert.deepEqual(stats.toJson('errors-warnings').errors, [])
    assert.equal(await run(t, name, await readFile(join(directory, name))), '2 true\n')
  })
}

for (const [entry, name] of [['drop-in.cjs', 'out.cjs'], ['fetch.mjs', 'out.mjs']]) {
  test(`ncc: ${entry}`, async t => {
    const { code } = await require('@vercel/ncc')(path(`bundles/${entry}`), { quiet: true, cache: false })
    assert.equal(await run(t, name, code), '2 true\n')
  })
}

test('a bundle for Workers imports the modules, and does not have them twice', async () => {
  const text = await bundled('fetch.mjs', { format: 'esm', conditions: ['workerd'], external: ['*.wasm'], platform: 'neutral' })
  assert.match(text, /from "[^"]*session\.core\.wasm"/)
  assert.ok(text.length < 200_000)
})
