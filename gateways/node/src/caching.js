// What caches are told of a response, so that none hands one visitor's to another: the rules of
// `keep_private` in headers/. `headers` has `get`, `set` and `keys`, as those of fetch.

/** Headers for shared caches alone, which then do not look at Cache-Control (RFC 9213). */
const FOR_SHARED_CACHES = /^(.+-cache|surrogate)-control$/i

/** The response carries a session's cookie: no shared cache may keep it. */
export function keepPrivate (headers) {
  headers.set('Cache-Control', cacheControl(headers.get('Cache-Control')))
  for (const name of [...headers.keys()]) {
    if (FOR_SHARED_CACHES.test(name)) headers.set(name, 'no-store')
  }
  varyByCookie(headers)
}

/** The response may be another one for another cookie. */
export function varyByCookie (headers) {
  const vary = headers.get('Vary')
  if (!vary) headers.set('Vary', 'Cookie')
  else if (!/(^|,)\s*(\*|cookie)\s*(,|$)/i.test(vary)) headers.set('Vary', `${vary}, Cookie`)
}

/**
 * Without `public` and `s-maxage`, and with `private` where nothing says so already; `no-store`
 * where the application said nothing.
 */
function cacheControl (value) {
  if (value === undefined || value === null) return 'no-store'
  // Between the commas, but not within quotation marks.
  const directives = (value.match(/(?:[^,"]|"(?:\\.|[^"\\])*(?:"|\\?$))+/g) ?? [])
    .map(directive => directive.trim())
    .filter(directive => directive !== '' && !/^(public|s-maxage)\s*(=|$)/i.test(directive))
  // `private="x-user"` is about that field alone.
  const has = name => directives.some(directive => directive.toLowerCase() === name)
  // Who understands the status ignores `no-store` beside `must-understand` (RFC 9111, 5.2.2.3).
  const isPrivate = has('private') || (has('no-store') && !has('must-understand'))
  // In front: behind a quotation mark that is never closed it would be no directive.
  return (isPrivate ? directives : ['private', ...directives]).join(', ')
}
