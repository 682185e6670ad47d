// Compiled, not run.
import { Hono } from 'hono'
import { MemoryStore, OptionsError, Refused, withSession, type Session, type Store } from 'edge-session/fetch'
import { check } from 'edge-session/conformance'
import { MongoStore } from 'edge-session/mongodb'
import { RedisStore } from 'edge-session/redis'
import { createClient, createCluster, createSentinel } from 'redis'

interface Data { user?: string }

const store: Store = Math.random() < 1 ? new MemoryStore({ maxSessions: 10 }) : await MongoStore.connect('mongodb://localhost')
const ofClients: Store[] = [
  new RedisStore(createClient()),
  new RedisStore(createCluster({ rootNodes: [] })),
  new RedisStore(createSentinel({ name: 'edge', sentinelRootNodes: [] }))
]
const inRedis: Store = await RedisStore.connect('redis://localhost', { prefix: 'app:', disableTouch: true })
await check(inRedis)
const app = new Hono<{ Bindings: { session: Session<Data> } }>()
app.get('/', c => c.text(c.env.session.data.user ?? 'nobody'))

const handle = withSession<Data>((request, session, env: object, context) => {
  session.data.user = 'zoe'
  // @ts-expect-error it is a text
  session.data.user = 1
  session.renew()
  session.maxAge = null
  if (session.origin === 'forged') throw new Refused('no')
  return app.fetch(request, { ...env, session }, context)
}, { secret: 'a', store })

const response: Response = await handle(new Request('http://localhost'), {})
console.log(response.status, OptionsError)
