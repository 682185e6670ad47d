// The fetch handler of conformance-server.mjs, for every runtime.
const camelCase = value => value === null || typeof value !== 'object'
  ? value
  : Object.fromEntries(Object.entries(value).map(([name, value]) =>
    [name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase()), camelCase(value)]))

/** Reads the settings from environment variables. */
export function settings ({ EDGE_SESSION_SECRET, EDGE_SESSION_STORE = 'memory:', EDGE_SESSION_OPTIONS = '{}' }) {
  const { store: { url, collection, dbName, ...lifetimes } = {}, ...given } = camelCase(JSON.parse(EDGE_SESSION_OPTIONS))
  const options = { preset: 'safe', ...given, secret: EDGE_SESSION_SECRET?.split(',') }
  if (typeof options.cookie?.expires === 'string') options.cookie.expires = new Date(options.cookie.expires)
  return { options, lifetimes, store: { uri: url ?? EDGE_SESSION_STORE, collection, dbName } }
}

export const deedsOf = header => JSON.parse(header ?? '[]')

const deeds = {
  set: (session, key, value) => { session.data[key] = value },
  remove: (session, key) => { delete session.data[key] },
  regenerate: session => session.regenerate(),
  renew: session => session.renew(),
  destroy: session => session.destroy(),
  maxAge: (session, millis) => { session.maxAge = millis }
}

/**
 * Returns a handler that performs the operations in X-Deeds. For a WebSocket, it counts in the
 * session and calls `upgrade`, which is the runtime's own way.
 */
export async function fetchHandler (env, { MemoryStore, withSession }, upgrade) {
  const { options, lifetimes, store: { uri, collection, dbName } } = settings(env)
  const store = uri.startsWith('mongodb')
    ? await (await import('../src/fetch/mongodb.js')).MongoStore.connect(uri, { dbName, ...(collection && { collection }) })
    : new MemoryStore()
  return withSession((request, session, ...others) => {
    if (session === null) return Response.json({ data: null })
    if (upgrade !== undefined && request.headers.get('upgrade') === 'websocket') {
      session.data.sockets = (session.data.sockets ?? 0) + 1
      return upgrade(request, String(session.data.sockets), ...others)
    }
    const data = structuredClone(session.data)
    for (const [deed, ...values] of deedsOf(request.headers.get('x-deeds'))) deeds[deed](session, ...values)
    return Response.json({ data })
  }, { ...options, ...lifetimes, store })
}
