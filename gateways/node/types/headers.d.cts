import session = require('./index.cjs')

/**
 * `req.session` of an application behind the gateway, from the session headers (`Edge-Session*`);
 * replaces `session(options)`. Changes are sent as headers of the response. A request without the
 * headers is an error: it did not come through the gateway.
 */
declare function headerSessions (): session.Middleware

declare namespace headerSessions {
  export { headerSessions }
}

export = headerSessions
