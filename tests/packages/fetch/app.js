// A view counter as a fetch handler, behind as much of a server as it needs.
import http from 'node:http'
import { withSession } from 'edge-session/fetch'

const handle = withSession((request, session) => {
  session.data.viewCount = (session.data.viewCount ?? 0) + 1
  return new Response(`you have visited this page ${session.data.viewCount} times`)
}, { secret: process.env.SECRET })

http.createServer(async (req, res) => {
  const response = await handle(new Request(`http://127.0.0.1${req.url}`, { headers: req.headers }))
  res.writeHead(response.status, [...response.headers].flat()).end(await response.text())
}).listen(process.env.PORT, '127.0.0.1')
