import { perform } from './store.mjs'

// The loop, up to `ready` or `done`.
function run (engine, sessions, step, known, change) {
  while (step.tag === 'store') {
    const { request, exchange, onDone } = step.val
    const reply = perform(sessions, request, exchange.id, known)
    if (reply.tag === 'done' && onDone) return { tag: 'done', val: onDone }
    step = engine.resume(exchange, known, change, reply)
  }
  return step
}

// One request of a view counter, from its Cookie header to the page and the outcome: what it
// says of Set-Cookie, of Cache-Control, and of an error to be answered instead.
export function visit (engine, sessions, cookie) {
  const known = {}
  const cookies = cookie ? [Buffer.from(cookie, 'latin1')] : []
  const request = { cookies, path: '/', tls: false, secure: false }
  const begun = run(engine, sessions, engine.begin(request), known)
  if (begun.tag === 'done') return { outcome: begun.val } // no session here, or a failure

  const { exchange, data } = begun.val
  const visits = (JSON.parse(data).visits ?? 0) + 1
  const edits = [{ key: 'visits', value: JSON.stringify(visits) }]
  const change = { action: 'keep', data: { tag: 'edits', val: edits }, cookie: [] }

  const finished = run(engine, sessions, engine.finish(exchange, known, change), known, change)
  return { page: `${visits} visits`, outcome: finished.val }
}
