// The conformance server in Bun: bun bun.mjs PORT
/* global Bun */
import * as fetch from '../../src/fetch/index.js'
import { fetchHandler } from '../conformance-fetch.mjs'

const handle = await fetchHandler(process.env, fetch, (request, text, server) => {
  if (!server.upgrade(request, { data: { text } })) return new Response('no upgrade', { status: 426 })
})
Bun.serve({
  port: Number(process.argv[2]),
  hostname: '127.0.0.1',
  fetch: (request, server) => handle(request, server),
  websocket: { message: (socket, text) => { socket.send(`${text} ${socket.data.text}`) } }
})
