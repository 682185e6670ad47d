import session = require('../index.cjs')
import MemoryStore = session.MemoryStore
export = MemoryStore
