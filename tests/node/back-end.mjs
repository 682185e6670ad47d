// A back end that says what it takes a request's target for: SECRET when it is /internal or below,
// PUBLIC when it is /public or below, OTHER otherwise. Its argument says how it reads the target:
// `url` or `express`. Prints the port that it listens on.

import { createServer } from 'node:http'

import express from 'express'

const kinds = { internal: 'SECRET', public: 'PUBLIC' }

function byUrl(request, response) {
  // `/headers` is for what an application is told beside the target.
  if (request.url === '/public/headers') return response.end(JSON.stringify(request.headers))
  let path
  try {
    path = decodeURIComponent(new URL(request.url, 'http://x').pathname)
  } catch {
    response.statusCode = 404
    return response.end('OTHER')
  }
  // As file servers do.
  const first = path.split('/').find((segment) => segment !== '')
  response.end(kinds[first] ?? 'OTHER')
}

function byExpress() {
  const app = express()
  for (const [name, kind] of Object.entries(kinds)) {
    app.use(`/${name}`, (request, response) => response.send(kind))
    // Frameworks serve a page in the format that its name ends with.
    app.all(`/${name}.:format`, (request, response) => response.send(kind))
  }
  // A page by its name in a database. The parameter is decoded already: many decode it once more.
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
