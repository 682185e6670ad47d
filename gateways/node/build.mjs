// Builds generated/ from the component: jco's JavaScript, the core modules as files and as text,
// the SHA-256 of the component, and the CommonJS form of the drop-in.
import { createHash } from 'node:crypto'
import { mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'

const [{ transpile }, { build, transform }] = await Promise.all([import('@bytecodealliance/jco'), import('esbuild')])
  .catch(cause => { throw new Error('the packages that build this are missing: run `npm ci` first', { cause }) })

const path = relative => fileURLToPath(new URL(relative, import.meta.url))
const component = await readFile(path('../../host/session.wasm'))

const { files } = await transpile(component, {
  name: 'session',
  instantiation: 'sync',
  nodejsCompat: false,
  typescript: false
})

// jco's helpers took half of a request's time in the component: they check the memory's buffer for
// every field, and create new arrays for every text.
const DATA_VIEW = 'const dataView = mem => dv.buffer === mem.buffer ? dv : dv = new DataView(mem.buffer);'
const fastDataView = `
let bytes = new Uint8Array();
// A buffer that the memory has outgrown has no length any more.
const dataView = mem => {
  if (bytes.length === 0) {
    bytes = new Uint8Array(mem.buffer);
    dv = new DataView(mem.buffer);
  }
  return dv;
};`
const ENCODE = `let buf = utf8Encoder.encode(s);
    let ptr = realloc(0, 0, 1, buf.length);
    new Uint8Array(memory.buffer).set(buf, ptr);
    utf8EncodedLen = buf.length;
    return ptr;`
const fastEncode = `
const { length } = s;
let ptr = realloc(0, 0, 1, length);
dataView(memory);
let at = 0;
if (length < 200) {
  for (let code; at < length && (code = s.charCodeAt(at)) < 128; at++) bytes[ptr + at] = code;
}
utf8EncodedLen = length;
if (at === length) return ptr;
// No text is longer than three bytes for each of its units.
ptr = realloc(ptr, length, 1, length * 3);
dataView(memory);
utf8EncodedLen = utf8Encoder.encodeInto(s, bytes.subarray(ptr, ptr + length * 3)).written;
return realloc(ptr, length * 3, 1, utf8EncodedLen);`

// Most texts are short, and every result contains the identifier.
const DECODE = /utf8Decoder\.decode\(new Uint8Array\(memory0\.buffer, (ptr\d+), (len\d+)\)\)/g
const fastDecode = `
let identifier = '';
const decode = (ptr, length) => {
  if (length === 1 && bytes[ptr] < 128) return String.fromCharCode(bytes[ptr]);
  if (length === identifier.length) {
    let at = 0;
    while (at < length && bytes[ptr + at] === identifier.charCodeAt(at)) at++;
    if (at === length) return identifier;
  }
  const text = utf8Decoder.decode(bytes.subarray(ptr, ptr + length));
  // As many units as bytes: all of them ASCII.
  if (length === 32 && text.length === length) identifier = text;
  return text;
};`

// The clock's seconds may be a number, which avoids a BigInt.
const SECONDS = /dataView\(memory0\)\.setBigInt64\(arg0 \+ 0, toUint64\((v\w+)\), true\);/g

const toBytes = `
function toBytes(given) {
  if (given instanceof ArrayBuffer) return new Uint8Array(given);
  if (ArrayBuffer.isView(given)) return new Uint8Array(given.buffer, given.byteOffset, given.byteLength);
  throw new TypeError('bytes are a Uint8Array or an ArrayBuffer');
}
`

// Copies bytes without two more arrays, and refuses what has none: jco takes that for an empty list.
const BYTES = /var (src\d+) = new Uint8Array\((val\d+)\.buffer \|\| \2, [^;]*;\s*\(new Uint8Array\(memory0\.buffer, (ptr\d+), [^;]*\)\)\.set\(\1\);/g

let source = new TextDecoder().decode(files['session.js'])
for (const [slow, fast] of [[DATA_VIEW, fastDataView + fastDecode + toBytes], [ENCODE, fastEncode]]) {
  if (source.split(slow).length !== 2) throw new Error('this is not the pinned version of jco')
  source = source.replace(slow, () => fast)
}
if (![BYTES, DECODE, SECONDS].every(known => source.search(known) !== -1)) throw new Error('this is not the pinned version of jco')
source = source.replace(BYTES, 'dataView(memory0); bytes.set($2 instanceof Uint8Array ? $2 : toBytes($2), $3);')
source = source.replace(SECONDS,
  'dataView(memory0).setUint32(arg0, Number($1) >>> 0, true); dv.setUint32(arg0 + 4, Number($1) / 2 ** 32, true);')
source = source.replace(DECODE, 'decode($1, $2)')
const { code } = await transform(source, { format: 'esm', minifySyntax: true, minifyWhitespace: true })

await mkdir(path('generated'), { recursive: true })
const kept = new Set()

// Writes a file, unless it is there already: others may be reading it.
async function write (name, content) {
  kept.add(name)
  const file = path(`generated/${name}`)
  const old = await readFile(file).catch(() => undefined)
  if (!old?.equals(Buffer.from(content))) await writeFile(file, content)
}

const modules = Object.keys(files).filter(name => name.endsWith('.wasm'))
for (const name of modules) await write(name, files[name])
await write('session.js', code)
const sha256 = createHash('sha256').update(component).digest('hex')
await write('about.js',
  `// The SHA-256 of the component that this is from.\nexport const sha256 = '${sha256}'\n` +
  `export const modules = ${JSON.stringify(modules)}\n`)
const texts = Object.fromEntries(modules.map(name => [name, Buffer.from(files[name]).toString('base64')]))
await write('modules.js',
  `// The core modules in base64, by their names.\nexport const texts = ${JSON.stringify(texts, null, 2)}\n`)
const { outputFiles: [commonJs] } = await build({
  entryPoints: [path('src/express/index.js')],
  outfile: path('generated/express.cjs'),
  bundle: true,
  write: false,
  external: ['cookie', 'on-headers'],
  format: 'cjs',
  platform: 'node',
  target: 'node20'
})
await write('express.cjs', commonJs.contents)
for (const name of await readdir(path('generated'))) {
  if (!kept.has(name)) await rm(path(`generated/${name}`), { recursive: true })
}
console.log(`generated/ is from the component ${sha256}`)
