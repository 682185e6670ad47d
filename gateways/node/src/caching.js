// Headers that prevent caches from serving one visitor's response to another: the rules of
// `keep_private` in headers/. `headers` has `get`, `set` and `keys`, like those of fetch.

/** Headers for shared caches only, which override Cache-Control (RFC 9213). */
const FOR_SHARED_CACHES = /^(.+-cache|surrogate)-control$/i

/** Marks a response with a session's cookie: no shared cache may store it. */
export function keepPrivate (headers) {
  headers.set('Cache-Control', cacheControl(headers.get('Cache-Control')))
  for (const name of [...headers.keys()]) {
    if (FOR_SHARED_CACHES.test(name)) headers.set(name, 'no-store')
  }
  varyByCookie(headers)
}

/** Marks a response that may differ for another cookie. */
export function varyByCookie (headers) {
  const vary = headers.get('Vary')
  if (!vary) headers.set('Vary', 'Cookie')
  else if (!/(^|,)\s*(\*|cookie)\s*(,|$)/i.test(vary)) headers.set('Vary', `${vary}, Cookie`)
}

/**
 * Removes `public` and `s-maxage`, and adds `private` unless the response is already private.
 * Returns `no-store` if the application sent no Cache-Control.
 */
function cacheControl (value) {
  if (value === undefined || value === null) return 'no-store'
  // Split at commas, except within quotation marks.
  const directives = (value.match(/(?:[^,"]|"(?:\\.|[^"\\])*(?:"|\\?$))+/g) ?? [])
    .map(directive => directive.trim())
    .filter(directive => directive !== '' && !/^(public|s-maxage)\s*(=|$)/i.test(directive))
  // `private="x-user"` covers only that field.
  const has = name => directives.some(directive => directive.toLowerCase() === name)
  // Caches that understand the status ignore `no-store` beside `must-understand` (RFC 9111,
  // 5.2.2.3).
  const isPrivate = has('private') || (has('no-store') && !has('must-understand'))
  // At the front, because after an unclosed quotation mark it would not be a directive.
  return (isPrivate ? directives : ['private', ...directives]).join(', ')
}
