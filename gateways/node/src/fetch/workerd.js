// The same for Cloudflare Workers, which compile the core modules at deployment.
import core from '../../generated/session.core.wasm'
import core2 from '../../generated/session.core2.wasm'
import core3 from '../../generated/session.core3.wasm'
import { withTurns } from './sessions.js'

export { MemoryStore, OptionsError, Refused } from './sessions.js'

const own = () => ({
  'session.core.wasm': core,
  'session.core2.wasm': core2,
  'session.core3.wasm': core3
})

// Workers do not allow one request to wait for another.
export const withSession = (handler, options) => {
  const { modules = own, ...others } = options ?? {}
  return withTurns(handler, others, modules)
}
