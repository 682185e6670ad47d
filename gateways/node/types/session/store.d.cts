import session = require('../index.cjs')
import Store = session.Store
export = Store
