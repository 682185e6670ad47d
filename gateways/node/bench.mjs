// CPU per request of a counter page on Express: bare, with express-session, with edge-session, all
// with their MemoryStore. The client and the servers are separate processes. Rounds are short and
// alternate, so that changes in the machine's speed affect all of them equally.
//   node bench.mjs [--json] [ROUNDS] [REQUESTS]
import { fork } from 'node:child_process'
import http from 'node:http'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

const require = createRequire(import.meta.url)
const OPTIONS = { secret: 'a secret of at least 32 bytes is long', resave: false, saveUninitialized: false }
const KINDS = {
  bare: () => (req, res, next) => { req.session = {}; next() },
  'express-session': () => require('express-session')(OPTIONS),
  'edge-session': () => require('./index.cjs')(OPTIONS)
}
const isJson = process.argv.includes('--json')
const [kind = 61, requests = 800] = process.argv.slice(2).filter(argument => argument !== '--json')
if (kind in KINDS) serve(KINDS[kind]())
else await measure(Number(kind), Number(requests))

function serve (middleware) {
  const app = require('express')()
  app.use(middleware)
  app.get('/', (req, res) => {
    req.session.viewCount = (req.session.viewCount ?? 0) + 1
    res.send(`you have visited this page ${req.session.viewCount} times`)
  })
  const server = app.listen(0, '127.0.0.1', () => process.send(server.address().port))
  process.on('message', () => process.send(process.cpuUsage()))
}

async function measure (rounds, requests) {
  const servers = {}
  for (const kind of Object.keys(KINDS)) {
    const child = fork(fileURLToPath(import.meta.url), [kind])
    servers[kind] = { child, port: await message(child), visitors: new Array(100).fill(undefined), micros: [] }
  }
  for (const server of Object.values(servers)) await round(server, requests) // warm
  for (let n = 0; n < rounds; n++) {
    for (const server of Object.values(servers)) server.micros.push(await round(server, requests))
  }
  for (const { child } of Object.values(servers)) child.kill()
  const median = list => list.sort((a, b) => a - b)[list.length >> 1]
  const bare = median(servers.bare.micros)
  const share = Object.fromEntries(Object.entries(servers).map(([kind, { micros }]) => [kind, median(micros) - bare]))
  if (isJson) {
    // For bench/, in microseconds.
    const [bare, peer, ours] = Object.values(servers).map(({ micros }) => median(micros))
    const versions = ['express', 'express-session'].map(name => `${name} ${require(`${name}/package.json`).version}`)
    return console.log(JSON.stringify({ bare, peer, ours, with: [`Node ${process.versions.node}`, ...versions].join(', ') }))
  }
  console.log(`server CPU per request, median of ${rounds} alternating rounds of ${requests}, Node ${process.versions.node}`)
  for (const [kind, { micros }] of Object.entries(servers)) {
    const spread = `${micros[0].toFixed(0)} to ${micros.at(-1).toFixed(0)}`
    const ratio = kind === 'bare' ? '' : `session's share ${share[kind].toFixed(1)} µs, ` +
      `${(share[kind] / share['express-session']).toFixed(2)} of express-session's`
    console.log(`${kind.padEnd(16)} ${median(micros).toFixed(1).padStart(6)} µs (${spread})  ${ratio}`)
  }
}

// Returning visitors, eight concurrent requests.
async function round ({ child, port, visitors, micros }, requests) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 8 })
  const before = await usage(child)
  let left = requests
  await Promise.all(Array.from({ length: 8 }, async () => {
    while (left-- > 0) {
      const at = left % visitors.length
      const headers = visitors[at] ? { cookie: visitors[at] } : {}
      visitors[at] = await get(agent, port, headers) ?? visitors[at]
    }
  }))
  const after = await usage(child)
  agent.destroy()
  return (after.user + after.system - before.user - before.system) / requests
}

function get (agent, port, headers) {
  return new Promise((resolve, reject) => {
    http.get({ agent, host: '127.0.0.1', port, headers }, response => {
      response.resume().on('end', () => resolve(response.headers['set-cookie']?.[0].split(';')[0]))
    }).on('error', reject)
  })
}

function message (child) {
  return new Promise(resolve => child.once('message', resolve))
}

function usage (child) {
  child.send('usage')
  return message(child)
}
