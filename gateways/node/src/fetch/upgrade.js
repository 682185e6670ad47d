// Bun's `server.upgrade(request)` responds at once, before the session is stored. So the handler
// gets a server whose upgrade waits until then and includes the cookie.

export class Upgrade {
  isAsked = false
  server
  #server
  #options

  /**
   * Whether the handler's second argument is such a server, and the request asks for an upgrade.
   */
  static isPossible (request, server) {
    return typeof server?.upgrade === 'function' && /\bwebsocket\b/i.test(request.headers.get('upgrade') ?? '')
  }

  constructor (server) {
    this.#server = server
    const upgrade = (request, options) => {
      this.isAsked = true
      this.#options = options
      return true
    }
    this.server = new Proxy(server, {
      get (target, name) {
        if (name === 'upgrade') return upgrade
        const value = Reflect.get(target, name, target)
        return typeof value === 'function' ? value.bind(target) : value
      }
    })
  }

  /**
   * Performs the upgrade that the handler requested. Returns nothing on success, as Bun expects.
   */
  answer (request, setCookie) {
    const headers = new Headers(this.#options?.headers)
    if (setCookie !== undefined) headers.append('Set-Cookie', setCookie)
    if (this.#server.upgrade(request, { ...this.#options, headers })) return undefined
    return new Response('The connection could not be upgraded.\n', { status: 400 })
  }
}
