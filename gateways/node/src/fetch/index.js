// Sessions for fetch handlers, run by the component.
import { modules as own } from '../modules.js'
import { Turns } from '../turns.js'
import { withTurns } from './sessions.js'

export { MemoryStore, OptionsError, Refused } from './sessions.js'

/** Answers requests with `handler(request, session, ...rest)`, with a session for each request. */
export function withSession (handler, options) {
  const { modules = own, ...others } = options ?? {}
  return withTurns(handler, others, modules, new Turns())
}
