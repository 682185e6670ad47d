import { perform } from './store.mjs'

// The loop, up to `ready` or `done`.
function run (engine, sessions, step, known, change) {
  while (step.tag === 'store') {
    const { request, exchange, onDone } = step.val
    const tag = perform(sessions, request, exchange.id, known)
    if (tag === 'done' && onDone) return onDone
    step = engine.resume(exchange, known, change, { tag })
  }
  return step.val
}

// One request of a view counter, from its Cookie header to its Set-Cookie.
export function visit (engine, sessions, cookie) {
  const known = {}
  const request = { cookies: cookie ? [Buffer.from(cookie)] : [], path: '/', tls: false, secure: false }
  const { exchange, data } = run(engine, sessions, engine.begin(request), known)

  const visits = (JSON.parse(data).visits ?? 0) + 1
  const edits = [{ key: 'visits', value: JSON.stringify(visits) }]
  const change = { action: 'keep', data: { tag: 'edits', val: edits }, cookie: [] }

  const step = engine.finish(exchange, known, change)
  const { setCookie } = run(engine, sessions, step, known, change)
  return { visits, origin: exchange.origin, setCookie }
}
