// The same for Cloudflare Workers, which compile the core modules when they are deployed.
import core from '../../generated/session.core.wasm'
import core2 from '../../generated/session.core2.wasm'
import core3 from '../../generated/session.core3.wasm'
import { withSession as general } from './index.js'

export { MemoryStore, OptionsError, Refused } from './index.js'

const modules = () => ({
  'session.core.wasm': core,
  'session.core2.wasm': core2,
  'session.core3.wasm': core3
})

export const withSession = (handler, options) => general(handler, { modules, ...options })
