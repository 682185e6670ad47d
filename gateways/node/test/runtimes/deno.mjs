// The conformance server in Deno: deno run -A --node-modules-dir=manual deno.mjs PORT
/* global Deno */
import * as fetch from '../../src/fetch/index.js'
import { fetchHandler } from '../conformance-fetch.mjs'

const handle = await fetchHandler(Deno.env.toObject(), fetch, (request, text) => {
  const { socket, response } = Deno.upgradeWebSocket(request)
  socket.onmessage = ({ data }) => socket.send(`${data} ${text}`)
  return response
})
Deno.serve({ port: Number(Deno.args[0]), hostname: '127.0.0.1', onListen () {} }, request => handle(request))
