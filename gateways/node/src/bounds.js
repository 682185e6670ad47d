// Truncates values before they enter the component: to more than its result can depend on. These
// are not additional rules; the result is the same as for the whole value.
import { SessionError } from './engine.js'

/**
 * The component reads no more than this in all Cookie headers together, and reports `oversized`.
 */
const COOKIES = 16 * 1024

/** The maximum length of the option `cookie.path`. Only these bytes and the next one matter. */
const PATH = 1024

/** Far longer than the X-Forwarded-Proto of any proxy. */
const FORWARDED_PROTO = 1024

/** The Cookie header in bytes. A truncated one is still too large. */
export const cookies = header => latin1(header ? header.slice(0, COOKIES + 1) : '')

/** The beginning of a request's path. */
export const path = path => path.slice(0, PATH + 1)

/** An implausible value counts as missing. */
export const forwardedProto = value =>
  value === null || value === undefined || value.length > FORWARDED_PROTO ? undefined : latin1(value)

/** A stored text of more than `most` bytes is damaged, and so is an empty one. */
export const stored = (text, most) => text.length > most ? '' : text

/** Throws the component's failure for a change whose data alone exceeds `most` bytes. */
export function check ({ action, data: { tag, val } }, most) {
  if (tag === 'nothing' || action === 'destroy' || action === 'unset') return
  const size = tag === 'whole'
    ? val.length
    : val.reduce((size, { key, value }) => value === undefined ? size : size + key.length + value.length, 0)
  if (size <= most) return
  throw notSaved('too-large', `the session would have more than ${size} bytes, more than maxSessionBytes, ${most}`)
}

/** The component's failure for a change that cannot be stored. */
export const notSaved = (kind, reason) =>
  new SessionError({ kind, status: 500, message: 'The session could not be saved.', reason })

function latin1 (text) {
  const bytes = new Uint8Array(text.length)
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at)
  return bytes
}
