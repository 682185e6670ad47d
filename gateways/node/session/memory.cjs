'use strict'

// As `express-session/session/memory`.
module.exports = require('../index.cjs').MemoryStore
