// Stores' types name express-session's, and @types/express-session would declare what
// edge-session declares.
declare module 'express-session' {
  import session = require('edge-session')
  export = session
}
