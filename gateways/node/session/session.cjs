'use strict'

// As `express-session/session/session`.
module.exports = require('../index.cjs').Session
