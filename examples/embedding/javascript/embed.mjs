import { load, perform } from './store.mjs'

// One request of a view counter, from its Cookie header to the page and the outcome: what it says
// of Set-Cookie and of Cache-Control. A failure is thrown, as the error's `payload`.
export function visit (engine, sessions, cookie) {
  const cookies = Buffer.from(cookie ?? '', 'latin1')
  let stored
  let begun = engine.begin({ cookies, path: '/', tls: false, secure: false })
  while (begun.tag === 'load') {
    stored = load(sessions, begun.val.id)
    begun = engine.loaded(begun.val, { tag: 'ok', val: stored })
  }
  if (begun.tag === 'none') return { page: 'no session here' }

  const { visit, text } = begun.val
  const visits = (JSON.parse(text ?? stored.data).visits ?? 0) + 1
  const edits = [{ key: 'visits', value: JSON.stringify(visits) }]
  const change = { action: 'keep', data: { tag: 'edits', val: edits }, cookie: [] }

  let plan = engine.finish(visit, stored, change)
  for (let at = 0, seen = stored; at < plan.writes.length; at++) {
    const obstacle = perform(sessions, plan.writes[at], seen)
    if (!obstacle) continue
    if (obstacle.tag === 'conflict') seen = obstacle.val
    plan = engine.resume(plan.visit, stored, change, at, obstacle)
    at = -1 // The new plan is performed from its start.
  }
  return { page: `${visits} visits`, outcome: plan.outcome }
}
