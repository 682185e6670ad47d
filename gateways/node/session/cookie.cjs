'use strict'

// As `express-session/session/cookie`.
module.exports = require('../index.cjs').Cookie
