// A back end that reports its reading of a request's target: SECRET for /internal or below, PUBLIC
// for /public or below, OTHER otherwise. Its argument selects the parser: `url` or `express`.
// Prints the port that it listens on.

import { createServer } from 'node:http'

import express from 'express'

const kinds = { internal: 'SECRET', public: 'PUBLIC' }

function byUrl(request, response) {
  // `/headers` returns the headers that an application receives.
  if (request.url === '/public/headers') return response.end(JSON.stringify(request.headers))
  let path
  try {
    path = decodeURIComponent(new URL(request.url, 'http://x').pathname)
  } catch {
    response.statusCode = 404
    return response.end('OTHER')
  }
  // Like file servers.
  const first = path.split('/').find((segment) => segment !== '')
  response.end(kinds[first] ?? 'OTHER')
}

function byExpress() {
  const app = express()
  for (const [name, kind] of Object.entries(kinds)) {
    app.use(`/${name}`, (request, response) => response.send(kind))
    // Frameworks serve a page in the format given by its extension.
    app.all(`/${name}.:format`, (request, response) => response.send(kind))
  }
  // Looks up a page by name in a database. The parameter is already decoded; many decode it again.
  app.all('/{*page}', (request, response) => {
    const page = request.params.page?.[0] ?? ''
    response.send(kinds[page] ?? kinds[decodeURIComponent(page)] ?? 'OTHER')
  })
  app.use((error, request, response, next) => response.status(error.status ?? 404).send('OTHER'))
  return app
}

const listener = { url: byUrl, express: byExpress() }[process.argv[2]]
const server = createServer(listener)
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
