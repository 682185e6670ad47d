import session = require('./index.cjs')

/**
 * `req.session` of an application behind the gateway, made of its headers `Edge-Session*` and answered
 * by them: in place of `session(options)`. A request without them is an error: it did not come through
 * the gateway.
 */
declare function headerSessions (): session.Middleware

declare namespace headerSessions {
  export { headerSessions }
}

export = headerSessions
