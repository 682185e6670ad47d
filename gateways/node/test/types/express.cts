// Compiled, not run.
import session = require('edge-session')

const middleware: session.Middleware = session({ secret: 'a' })
export = middleware
