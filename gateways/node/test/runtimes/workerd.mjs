// The conformance server in workerd: bundled by esbuild, with the variables as bindings.
/* global WebSocketPair */
import * as fetch from '../../src/fetch/workerd.js'
import { fetchHandler } from '../conformance-fetch.mjs'

let handle

export default {
  async fetch (request, env) {
    handle ??= await fetchHandler(env, fetch, (request, text) => {
      const [client, server] = Object.values(new WebSocketPair())
      server.accept()
      server.addEventListener('message', ({ data }) => server.send(`${data} ${text}`))
      return new Response(null, { status: 101, webSocket: client })
    })
    return handle(request)
  }
}
