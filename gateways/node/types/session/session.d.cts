import session = require('../index.cjs')
import Session = session.Session
export = Session
