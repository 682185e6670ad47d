// Sessions for handlers of the fetch kind, with the component.
import { modules as own } from '../modules.js'
import { Turns } from '../turns.js'
import { withTurns } from './sessions.js'

export { MemoryStore, OptionsError, Refused } from './sessions.js'

/** Answers requests with `handler(request, session, ...rest)`, which gets a session for each. */
export function withSession (handler, options) {
  const { modules = own, ...others } = options ?? {}
  return withTurns(handler, others, modules, new Turns())
}
