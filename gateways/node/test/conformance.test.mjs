// Both forms of the server for tests that compare gateways work as documented.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { MongoClient } from 'mongodb'

const script = fileURLToPath(new URL('conformance-server.mjs', import.meta.url))

async function freePort () {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  return port
}

const stores = ['memory:']
if (process.env.MONGODB_URI) {
  const uri = new URL(process.env.MONGODB_URI)
  uri.pathname = `/edge_session_conformance_${process.pid}`
  stores.push(uri.href)
  after(async () => {
    const client = await MongoClient.connect(uri.href)
    await client.db().dropDatabase()
    await client.close()
  })
}

for (const kind of ['express', 'fetch']) {
  for (const store of stores) {
    test(`${kind} with ${store.split(':')[0]}`, async t => {
      const port = await freePort()
      const env = {
        ...process.env,
        EDGE_SESSION_SECRET: 'a secret of at least 32 bytes is long',
        EDGE_SESSION_STORE: store,
        EDGE_SESSION_OPTIONS: JSON.stringify({ name: 'sid', cookie: { max_age: 60000, path: '/app' } })
      }
      const child = spawn(process.execPath, [script, kind, String(port)], { env, stdio: ['ignore', 'pipe', 'inherit'] })
      t.after(() => child.kill())
      assert.equal(String((await once(child.stdout, 'data'))[0]), 'ready\n')
      let cookie
      const visit = async (deeds, path = '/app') => {
        const headers = { 'x-deeds': JSON.stringify(deeds), ...(cookie && { cookie }) }
        const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers })
        const [sent] = response.headers.getSetCookie()
        cookie = sent?.split(';')[0] ?? cookie
        return { sent, ...await response.json() }
      }
      assert.deepEqual(await visit([], '/other'), { sent: undefined, data: null })
      assert.deepEqual(await visit([]), { sent: undefined, data: {} })
      const first = await visit([['set', 'a', 1], ['set', 'b', [2]], ['remove', 'a'], ['set', 'c', { d: null }]])
      assert.match(first.sent, /^sid=s%3A.*; Path=\/app; Expires=.*; HttpOnly; SameSite=Lax$/)
      const second = await visit([['renew'], ['maxAge', 3600000]])
      assert.deepEqual(second.data, { b: [2], c: { d: null } })
      assert.notEqual(second.sent.split('.')[0], first.sent.split('.')[0])
      assert.deepEqual((await visit([['regenerate'], ['set', 'anew', 'é']])).data, { b: [2], c: { d: null } })
      const last = await visit([['destroy']])
      assert.deepEqual(last.data, { anew: 'é' })
      assert.match(last.sent, /^sid=; .*1970/)
      assert.deepEqual((await visit([])).data, {})
    })
  }
}
