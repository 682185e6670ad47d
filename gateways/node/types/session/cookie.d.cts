import session = require('../index.cjs')
import Cookie = session.Cookie
export = Cookie
