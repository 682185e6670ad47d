// To be bundled and run alone.
import { withSession } from 'edge-session/fetch'

const handle = withSession((request, session) => {
  session.data.n = (session.data.n ?? 0) + 1
  return new Response(`${session.data.n} true`)
}, { secret: 'a secret of at least 32 bytes is long' })

const first = await handle(new Request('http://localhost/'))
const cookie = first.headers.getSetCookie()[0].split(';')[0]
console.log(await (await handle(new Request('http://localhost/', { headers: { cookie } }))).text())
