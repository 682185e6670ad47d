// What the component is spared: more of a value than its answer can depend on. These are no
// rules of their own: its answer is the same as for the whole value.

/** The component does not look at more in all Cookie headers together, and says `oversized`. */
const COOKIES = 16 * 1024

/** The longest `cookie.path` that the options may have: it, and what follows it, decide. */
const PATH = 1024

/** What proxies put into X-Forwarded-Proto is far shorter. */
const FORWARDED_PROTO = 1024

/** The Cookie headers in one: of too much, so much that it is still too much. */
export const cookies = header => header ? [latin1(header.slice(0, COOKIES + 1))] : []

/** The beginning of a request's path. */
export const path = path => path.slice(0, PATH + 1)

/** A value that says nothing is none. */
export const forwardedProto = value =>
  value === null || value === undefined || value.length > FORWARDED_PROTO ? undefined : latin1(value)

/** A stored text of more than `most` bytes is damaged, and so is an empty one. */
export const stored = (text, most) => text.length > most ? '' : text

/** How large a session becomes at least by a change, where that is more than `most` bytes. */
export function excess ({ action, data: { tag, val } }, most) {
  if (tag === 'nothing' || action === 'destroy' || action === 'unset') return undefined
  const size = tag === 'whole'
    ? val.length
    : val.reduce((size, { key, value }) => value === undefined ? size : size + key.length + value.length, 0)
  return size > most ? size : undefined
}

function latin1 (text) {
  const bytes = new Uint8Array(text.length)
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at)
  return bytes
}
