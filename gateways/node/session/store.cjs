'use strict'

// As `express-session/session/store`.
module.exports = require('../index.cjs').Store
