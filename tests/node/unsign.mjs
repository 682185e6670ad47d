// Reads a Cookie header as express-session does and prints the session id in it, or `false`.
// usage: SECRET=… node unsign.mjs COOKIE-HEADER
import cookie from 'cookie'
import signature from 'cookie-signature'

const raw = cookie.parse(process.argv[2])['connect.sid'] ?? ''
console.log(raw.startsWith('s:') && signature.unsign(raw.slice(2), process.env.SECRET))
