//! The output of `edge-session check` for each mistake, with the input that causes it.

use std::fs;

use edge_session_tests::{Database, Launch, free_port, temp_dir};

/// Configuration files with one mistake, and the message. `T` stands for the file's name.
const MISTAKES: &[(&str, &str)] = &[
    // Not TOML.
    ("name = \"a", "T is not TOML: line 1, column 10: "),
    ("a = 1\na = 2", "T is not TOML: line 2, column 1: duplicate key"),
    ("name: a", "T is not TOML: line 1, column "),
    // Unknown options.
    ("listn = \"127.0.0.1:80\"", "listn: is not an option: did you mean listen? (T, line 1)"),
    (
        "\nsaveUninitialized = true",
        "saveUninitialized: is not an option: did you mean save_uninitialized? (T, line 2)",
    ),
    ("max_age = 1", "max_age: is not an option: did you mean cookie.max_age? (T, line 1)"),
    (
        "[cookie]\nhttponly = true",
        "cookie.httponly: is not an option: did you mean cookie.http_only? (T, line 2)",
    ),
    ("[session]\nname = \"a\"", "session: is not an option (T, line 1)"),
    ("speed = 1", "speed: is not an option (T, line 1)"),
    (
        "[[guard]]\npath = [\"/a\"]\nrequire = \"/u\"",
        "guard[0].path: is not an option: did you mean paths? (T, line 2)",
    ),
    (
        "[[route]]\nupstreams = \"http://a\"",
        "route[0].upstreams: is not an option: did you mean upstream? (T, line 2)",
    ),
    // Wrong types.
    ("resave = \"yes\"", "resave: is a string, not true or false (T, line 1)"),
    ("name = 5", "name: is 5, not a string (T, line 1)"),
    (
        "max_session_bytes = -1",
        "max_session_bytes: is -1, not a whole number up to 4294967295, such as 1048576 (T, line 1)",
    ),
    (
        "max_session_bytes = \"1 MiB\"",
        "max_session_bytes: is a string, not a whole number up to 4294967295, such as 1048576 (T, line 1)",
    ),
    ("log = \"debug\"", "log: is a string, not a section of options, such as [log] (T, line 1)"),
    (
        "[gateway]\ntrusted_proxies = 1",
        "gateway.trusted_proxies: is 1, not a list in brackets (T, line 2)",
    ),
    ("preset = \"strict\"", "preset: is \"strict\", not one of \"safe\", \"express\" (T, line 1)"),
    (
        "[cookie]\nsame_site = \"sometimes\"",
        "cookie.same_site: is \"sometimes\", not one of \"strict\", \"lax\", \"none\", \"auto\" (T, line 2)",
    ),
    // Addresses.
    (
        "listen = \"8080\"",
        "listen: is neither an address with a port, such as 127.0.0.1:8080 or :8080, nor a socket, such as unix:/run/edge-session/http.sock (T, line 1)",
    ),
    ("listen = \"example.com:80\"", "listen: is neither an address with a port"),
    (
        "[admin]\nlisten = \"unix:/a\"",
        "admin.listen: cannot be a unix socket: give an address with a port (T, line 2)",
    ),
    (
        "listen = \"127.0.0.1:9\"\n[admin]\nlisten = \"127.0.0.1:9\"",
        "admin.listen: is 127.0.0.1:9, which `listen` already uses: choose another port (T, line 3)",
    ),
    (
        "listen = \":9\"\nupstream = \"http://127.0.0.1:9\"",
        "upstream: 127.0.0.1:9 is this program's own `listen`: requests would loop (T, line 2)",
    ),
    (
        "listen = \"localhost:9\"\nupstream = \"localhost:9\"",
        "upstream: localhost:9 is this program's own `listen`",
    ),
    (
        "upstream = \"http://127.0.0.1:9\"\n[admin]\nlisten = \"127.0.0.1:9\"",
        "upstream: 127.0.0.1:9 is this program's own `admin.listen`",
    ),
    (
        "listen = \"unix:/a\"\nupstream = \"unix:/a\"",
        "upstream: unix:/a is this program's own `listen`",
    ),
    (
        "upstream = \"ftp://a\"",
        "upstream: \"ftp://a\" is neither a URL such as http://127.0.0.1:3000 nor a socket",
    ),
    (
        "upstream = \"http://a/path?k=hunter2\"",
        "upstream: \"http://a\" is followed by a path or a query: requests keep their own, so give only the host",
    ),
    (
        "upstream = \"http://u:hunter2@a\"",
        "upstream: the URL of \"a\" contains a user name, which is not supported",
    ),
    (
        "[telemetry]\notlp = \"localhost\"",
        "telemetry.otlp: is \"localhost\", not a URL such as http://127.0.0.1:4318",
    ),
    (
        "upstream = \"http://127.0.0.1:99999\"",
        "upstream: the port of \"http://127.0.0.1:99999\" is not between 1 and 65535 (T, line 1)",
    ),
    (
        "upstream = \"/run/app.sock\"",
        "upstream: \"/run/app.sock\" is not a URL: for an application's socket, write unix:/run/app.sock (T, line 1)",
    ),
    (
        "upstream = \"http://unix:/run/app.sock\"",
        "for an application's socket, write unix:/run/app.sock",
    ),
    (
        "listen = \"127.0.0.1:9\"\nupstream = \":8\"\n[[route]]\npath = \"/a\"\nupstream = \":9\"",
        "route[0].upstream: 127.0.0.1:9 is this program's own `listen`: requests would loop (T, line 5)",
    ),
    (
        "listen = \"unix:missing/http.sock\"",
        "listen: is unix:missing/http.sock: the directory missing does not exist (T, line 1)",
    ),
    (
        "listen = \"unix:edge-session.toml\"",
        "listen: is unix:edge-session.toml: the file is not a socket, and is left unchanged",
    ),
    (
        "[admin]\ntoken = \"a\"",
        "admin.token: is not an option: did you mean EDGE_SESSION_ADMIN_TOKEN, an environment variable? (T, line 2)",
    ),
    (
        "[store]\nupstream = \"a\"",
        "store.upstream: is not an option: did you mean upstream, before the first [section]? (T, line 2)",
    ),
    (
        "upstream = \":9\"\n[gateway]\nlogin = \"/login?a\"\nlogout = \"/Login/\"",
        "gateway.logout: is also the path of gateway.login: nobody could log in (T, line 4)",
    ),
    (
        "upstream = \"http://user:hunter2\"",
        "upstream: the port of \"http://user:…\" is not between 1 and 65535",
    ),
    (
        "upstream = \"http://user:hunter2,x@a\"",
        "upstream: the port of \"http://user:…\" is not between 1 and 65535",
    ),
    ("upstream = [\"u:hunter2\"]", "upstream: \"u:…\" is neither a URL"),
    (
        "upstream = \"unix:edge-session.toml\"",
        "upstream: unix:edge-session.toml is not a socket (T, line 1)",
    ),
    (
        "max_session_bytes = 5000000000",
        "max_session_bytes: is 5000000000, not a whole number up to 4294967295, such as 1048576 (T, line 1)",
    ),
    (
        "[store]\nurl = \"mongodb://u:hunter2\"",
        "the store mongodb://…: the mongodb:// address is not valid",
    ),
    ("[store]\nurl = \"file:mongodb://u:hunter2@h\"", "store.url: file:mongodb://h is not one of"),
    ("preset = \"http://u:hunter2@h\"", "preset: is a string, not one of"),
    (
        "[store]\n\"mongodb://u:hunter2@h\" = 1",
        "store.(a key that is not a name): is not an option",
    ),
    (
        "upstream = \":9\"\n[gateway]\ntrusted_proxies = [\"http://u:hunter2@h\"]",
        "gateway.trusted_proxies: ",
    ),
    // Stores.
    (
        "[store]\nurl = \"mysql://u:hunter2@a\"",
        "store.url: mysql://a is not one of memory:, file:PATH, mongodb://HOST/DATABASE, redis://HOST, postgres://HOST/DATABASE (T, line 2)",
    ),
    ("[store]\nurl = \"mongodb//u:hunter2@a\"", "store.url: mongodb//u… is not one of"),
    ("[store]\nurl = \"file:\"", "store.url: file: is not one of"),
    ("[store]\nurl = \"file://a/b.redb\"", "store.url: file://a/b.redb is not one of"),
    (
        "[store]\nurl = \"/data/s.redb\"",
        "store.url: /data/s.redb is not one of memory:, file:PATH, mongodb://HOST/DATABASE, redis://HOST, postgres://HOST/DATABASE: did you mean file:/data/s.redb?",
    ),
    (
        "[store]\nurl = \"mongodb://a/b&w=1\"",
        "the database name in the mongodb:// address contains & or =: options begin after a ?",
    ),
    (
        "[store]\ncollection = \"a\"",
        "store.collection: is only for mongodb:// stores: unset it, or change store.url (T, line 2)",
    ),
    ("[store]\nstringify = false", "store.stringify: is only for mongodb:// stores"),
    ("[store]\ntransform_id = \"sha256\"", "store.transform_id: is only for mongodb:// stores"),
    (
        "[store]\nurl = \"memory:\"\ncache_ms = 1000",
        "store.cache_ms: is only for mongodb://, redis:// and postgres:// stores: unset it, or change store.url (T, line 3)",
    ),
    (
        "conflicts = \"overwrite\"\n[store]\nurl = \"redis://a\"\ncache_ms = 1000",
        "store.cache_ms: needs conflicts = \"merge\": with \"overwrite\", a copy that is out of date would overwrite changes (T, line 4)",
    ),
    ("[store]\ntimeout_ms = 0", "store.timeout_ms: must be at least 1 (T, line 2)"),
    (
        "[store]\nurl = \"mongodb://u:hunter2@a/b?w=0\"",
        "the mongodb:// address sets w=0: failed writes would go unnoticed",
    ),
    (
        "[store]\nurl = \"mongodb://u:hunter2@a/b?maxPoolSize=many\"",
        "the option maxPoolSize of the mongodb:// address is unknown or has an invalid value",
    ),
    (
        "[store]\nurl = \"mongodb://u:hunter2@\"",
        "the mongodb:// address is not valid. In a user's name and password, @ : / ? # [ ] % must be written %40 %3A",
    ),
    // Guards and logins.
    (
        "[[guard]]\npaths = [\"/a\"]\nrequire = \"/u\"",
        "guard: there is nothing to guard: set `upstream`, `app`, a [[route]], ext_proc.listen or auth.listen",
    ),
    (
        "upstream = \":9\"\n[[guard]]\npaths = [\"a\"]\nrequire = \"/u\"",
        "guard[0].paths: \"a\" is not a path such as \"/admin\", which includes everything below it: patterns, queries and several paths in one text have no meaning here (T, line 3)",
    ),
    (
        "upstream = \":9\"\n[[guard]]\nrequire = \"/u\"",
        "guard[0].paths: is missing: set a list of paths (T, line 2)",
    ),
    (
        "upstream = \":9\"\n[[guard]]\npaths = [\"/a\"]",
        "guard[0].require: is missing: set a JSON pointer such as \"/user\", or `deny = true` (T, line 2)",
    ),
    (
        "upstream = \":9\"\n[[guard]]\npaths = [\"/a\"]\nrequire = \"/u\"\ndeny = true",
        "guard[0].require: excludes `deny = true`, which lets nobody pass (T, line 4)",
    ),
    (
        "upstream = \":9\"\n[[guard]]\npaths = [\"/a\"]\nrequire = \"/u\"\nexcept = [\"/b\"]",
        "guard[0].except: \"/b\" is not below any of the guard's paths (T, line 5)",
    ),
    (
        "upstream = \":9\"\n[cookie]\npath = \"/app\"\n[[guard]]\npaths = [\"/admin\"]\nrequire = \"/u\"",
        "guard[0].paths: \"/admin\" is not below cookie.path (/app): its requests have no session, so nobody would pass (T, line 5)",
    ),
    ("upstream = \":9\"\n[gateway]\nidentity = \"user\"", "gateway.identity: is \"user\""),
    ("upstream = \":9\"\n[gateway]\nlogin = \"//evil\"", "gateway.login: is \"//evil\""),
    (
        "upstream = \":9\"\n[gateway]\nsessions = \"shared\"",
        "gateway.sessions: \"shared\" requires the application's store: set store.url to its mongodb://, redis:// or postgres:// address (T, line 3)",
    ),
    (
        "upstream = \":9\"\n[gateway]\nsessions = \"shared\"\nlogout = \"/logout\"\n[store]\nurl = \"mongodb://a\"",
        "gateway.logout: cannot be set with sessions = \"shared\": the application itself reads the cookie and ends sessions (T, line 4)",
    ),
    (
        "app = \"edge-session.toml\"\n[gateway]\nsessions = \"shared\"\n[store]\nurl = \"mongodb://a\"",
        "gateway.sessions: \"shared\" requires an application that has its own store, not `app` (T, line 3)",
    ),
    (
        "upstream = \":9\"\n[[guard]]\npaths = [\"/a\"]\nrequire = \"user\"",
        "guard[0].require: is \"user\"",
    ),
    (
        "upstream = \":9\"\n[[guard]]\npaths = [\"/a\"]\nrequire = \"/u\"\nexcept = [\"/\"]",
        "guard[0].except: \"/\" would leave nothing to guard: all paths are below it (T, line 5)",
    ),
    (
        "upstream = \":9\"\n[[guard]]\npaths = [\"/a\"]\nrequire = \"/u\"\nexcept = [\"/a*\"]",
        "guard[0].except: \"/a*\" is not a path such as \"/public\", which includes everything below it",
    ),
    (
        "upstream = \":9\"\n[[guard]]\npaths = [\"/u/:id\"]\nrequire = \"/u\"",
        "guard[0].paths: \"/u/:id\" is not a path such as \"/admin\"",
    ),
    (
        "upstream = \":9\"\n[[guard]]\npaths = [\"/u/{id}\"]\nrequire = \"/u\"",
        "guard[0].paths: \"/u/{id}\" is not a path such as \"/admin\"",
    ),
    (
        "upstream = \":9\"\n[[guard]]\npaths = [\"/u/<id>\"]\nrequire = \"/u\"",
        "guard[0].paths: \"/u/<id>\" is not a path such as \"/admin\"",
    ),
    (
        "upstream = \":9\"\n[[guard]]\npaths = [\"/a,/b\"]\nrequire = \"/u\"",
        "guard[0].paths: \"/a,/b\" is not a path such as \"/admin\"",
    ),
    (
        "upstream = \":9\"\n[[guard]]\npaths = [\"/b\", \"/a\"]\nrequire = \"/u\"\nexcept = [\"/a/\"]",
        "guard[0].except: \"/a/\" would leave nothing of \"/a\" to guard (T, line 5)",
    ),
    (
        "[[route]]\npath = \"/v1\"\nupstream = \":9\"\n[[guard]]\npaths = [\"/v2\"]\nrequire = \"/u\"",
        "guard[0].paths: \"/v2\" is on no route: no request has this path (T, line 5)",
    ),
    (
        "[[route]]\npath = \"/v1\"\nupstream = \":9\"\n[[guard]]\npaths = [\"/\"]\nrequire = \"/u\"\nlogin = \"/login?a\"",
        "guard[0].require: leads to /login?a (login), which is on no route: add one (T, line 6)",
    ),
    (
        "upstream = \":9\"\n[gateway]\nlogin = \"/a/login\"\n[[guard]]\npaths = [\"/a\"]\ndeny = true\n[[guard]]\npaths = [\"/\"]\nrequire = \"/u\"",
        "guard[0].deny: denies everyone /a/login, where other guards let visitors log in (T, line 6)",
    ),
    (
        "upstream = \":9\"\n[gateway]\nlogout = \"/\"",
        "gateway.logout: is \"/\", where gateway.after_logout leads: the redirect would never end (T, line 3)",
    ),
    (
        "upstream = \":9\"\n[gateway]\nlogout = \"/out\"\nafter_logout = \"/out/?a\"",
        "gateway.logout: is \"/out\", where gateway.after_logout leads: the redirect would never end (T, line 3)",
    ),
    ("[tls]\n", "tls: is empty: set `certificate` and `key`, or remove the section (T, line 1)"),
    ("upstream = \"\"", "upstream: is empty: set a URL such as http://127.0.0.1:3000 (T, line 1)"),
    ("[store]\nurl = \"file:///tmp/x.redb\"", "did you mean file:/tmp/x.redb?"),
    (
        "[store]\nurl = \"file:~/x.redb\"",
        "only shells know what ~ is, so give the path of the directory",
    ),
    (
        "[store]\ncrypto_secret = \"x\"",
        "store.crypto_secret: is not an option: did you mean EDGE_SESSION_CRYPTO_SECRET, an environment variable?",
    ),
    ("[limits]\nheader_bytes = 131072.0", "limits.header_bytes: is 131072.0, not a whole number"),
    (
        "upstream = \":9\"\n[[guard]]\npaths = [\"/a\"]\nrequire = \"/u\"\nequals = [1]",
        "guard[0].equals: is not a string, a whole number, true or false (T, line 5)",
    ),
    (
        "upstream = \":9\"\n[gateway]\nlogin = \"/a;b\"",
        "gateway.login: is \"/a;b\": use a plain path, without // or ; (T, line 3)",
    ),
    (
        "upstream = \":9\"\n[gateway]\nlogout = \"/a*\"",
        "gateway.logout: is \"/a*\": give only a path, without a pattern or a query (T, line 3)",
    ),
    (
        "upstream = \":9\"\n[gateway]\nafter_logout = \"a\"",
        "gateway.after_logout: is \"a\", not a path of this host, which begins with one slash (T, line 3)",
    ),
    ("upstream = \":9\"\n[gateway]\ntrusted_proxies = [\"x\"]", "gateway.trusted_proxies: \"x\""),
    (
        "upstream = \":9\"\n[gateway]\nhealth_interval_ms = 0",
        "gateway.health_interval_ms: must be at least 1 (T, line 3)",
    ),
    (
        "[[route]]\nupstream = \":9\"\nhost = \"a:80\"",
        "route[0].host: \"a:80\" is not a host name (without a port) (T, line 3)",
    ),
    (
        "[[route]]\npath = \"/a\"",
        "route[0].upstream: is missing: set a URL such as http://127.0.0.1:3000 (T, line 1)",
    ),
    (
        "[[route]]\npath = \"/a\"\nupstream = \":8\"\n[[route]]\npath = \"/a/\"\nupstream = \":9\"",
        "route[1].upstream: has the same host and path as route[0].upstream, which receives all requests (T, line 6)",
    ),
    (
        "upstream = \":8\"\n[[route]]\nupstream = \":9\"",
        "upstream: has the same host and path as route[0].upstream, which receives all requests (T, line 1)",
    ),
    (
        "[admin]\nhosts = [\"a:80\"]",
        "admin.hosts: \"a:80\" is not a host name (without a port) (T, line 2)",
    ),
    // The cookie, and how long sessions live.
    (
        "name = \"a b\"",
        "name: \"a b\" is not a cookie name: only letters, digits and !#$%&'*+-.^_`|~ are allowed (T, line 1)",
    ),
    (
        "[cookie]\npath = \"a\"",
        "cookie.path: \"a\" is not a path: a path begins with / and contains no ; (T, line 2)",
    ),
    ("[cookie]\ndomain = \"a b\"", "cookie.domain: \"a b\" is not a host name (T, line 2)"),
    (
        "[cookie]\nmax_age = 100000000000",
        "cookie.max_age: is more than 400 days (in milliseconds): browsers shorten it (T, line 2)",
    ),
    (
        "[cookie]\nmax_age = 1\nexpires = \"2030-01-02T03:04:05Z\"",
        "cookie.expires: conflicts with cookie.max_age: set one of them (T, line 3)",
    ),
    (
        "[cookie]\nexpires = \"tomorrow\"",
        "cookie.expires: is \"tomorrow\", not a date such as 2030-01-02T03:04:05Z (T, line 2)",
    ),
    (
        "[cookie]\nsecure = \"yes\"",
        "cookie.secure: is \"yes\", not true, false or \"auto\" (T, line 2)",
    ),
    (
        "[cookie]\nsame_site = \"none\"",
        "cookie.same_site: \"none\" requires cookie.secure = true: browsers reject the cookie otherwise (T, line 2)",
    ),
    (
        "[cookie]\npartitioned = true",
        "cookie.partitioned: requires cookie.secure = true: browsers reject the cookie otherwise (T, line 2)",
    ),
    (
        "name = \"__Host-a\"\n[cookie]\nsecure = true\npath = \"/a\"",
        "cookie.path: must be \"/\": the name's prefix __Host- requires it (T, line 4)",
    ),
    (
        "name = \"__Host-a\"\n[cookie]\nsecure = true\ndomain = \"a.example\"",
        "cookie.domain: must not be set: the name's prefix __Host- forbids a domain (T, line 4)",
    ),
    ("name = \"__Secure-a\"", "cookie.secure: must be true: the name's prefix requires it"),
    ("[store]\nttl = 0", "store.ttl: must be at least 1 second (T, line 2)"),
    (
        "[store]\nttl = 60\ntouch_after = 60",
        "store.touch_after: 60 seconds is not less than store.ttl, 60 seconds: sessions in use would expire (T, line 3)",
    ),
    (
        "[store]\nurl = \"mongodb://a\"\nauto_remove_interval = 0",
        "store.auto_remove_interval: must be at least 1 minute (T, line 3)",
    ),
    (
        "[store]\nurl = \"mongodb://a\"\ncrypto = \"kruptein\"",
        "store.crypto: needs a secret: set EDGE_SESSION_CRYPTO_SECRET to connect-mongo's secret, or EDGE_SESSION_CRYPTO_SECRET_FILE to a file that contains it (T, line 3)",
    ),
    (
        "[store]\nurl = \"mongodb://a\"\ncrypto = 5",
        "store.crypto: is a value of type integer, not one of \"kruptein\", \"webcrypto\" (T, line 3)",
    ),
    (
        "secret = \"hunter2\"",
        "secret: must not be in the configuration file, which others may read: set EDGE_SESSION_SECRET",
    ),
    ("max_session_bytes = 0", "max_session_bytes: must be at least 1 (T, line 1)"),
    (
        "[cookie]\nmax_age = 9000000000000000",
        "cookie.max_age: is not a lifetime: use a number of milliseconds up to 8.64e15 (T, line 2)",
    ),
    (
        "[tls]\ncertificate = \"edge-session.toml\"\nkey = \"k\"",
        "tls: the TLS certificate edge-session.toml cannot be used: it contains no certificate (T, line 1)",
    ),
    (
        "[gateway]\nsessions = \"both\"",
        "gateway.sessions: is \"both\", not one of \"own\", \"shared\" (T, line 2)",
    ),
    // Limits.
    (
        "[limits]\nrequests = 2\nper_client = 3",
        "limits.per_client: is 3, more than limits.requests, 2 (T, line 3)",
    ),
    ("[limits]\nconnections = 0", "limits.connections: must be between 1 and 1000000 (T, line 2)"),
    (
        "[limits]\nheader_bytes = 1",
        "limits.header_bytes: is 1, not between 8192 and 1048576 (T, line 2)",
    ),
    (
        "[limits]\nbuffer_bytes = 20000000",
        "limits.buffer_bytes: is 20000000, more than 16777216: every request may use this much memory (T, line 2)",
    ),
    ("[timeouts]\nidle_ms = 0", "timeouts.idle_ms: must be at least 1 (T, line 2)"),
    ("[tls]\nkey = \"k\"", "tls: needs both `certificate` and `key` (T, line 1)"),
    ("[tls]\ncertificate = \"c\"\nkey = \"k\"", "the TLS certificate c cannot be used: "),
    (
        "upstream = \":9\"\n[gateway]\nerror_pages = \"missing\"",
        "/missing: No such file or directory (os error 2) (T, line 3)",
    ),
    (
        "upstream = \":9\"\n[gateway]\nerror_pages = \".\"",
        " has no page named after a status, such as 502.html (T, line 3)",
    ),
    ("app = \"missing.wasm\"", "cannot read the application missing.wasm: "),
    (
        "app = \"edge-session.toml\"",
        "the application edge-session.toml is not a WebAssembly component",
    ),
    // Gateways that ask.
    ("[ext_proc]\nlisten = \"9092\"", "ext_proc.listen: is neither an address with a port"),
    (
        "[ext_proc]\nlisten = \":9\"\n[auth]\nlisten = \"127.0.0.1:9\"",
        "auth.listen: is 127.0.0.1:9, which `ext_proc.listen` already uses: choose another port (T, line 4)",
    ),
    (
        "[ext_proc]\nlisten = \"unix:/no/s\"",
        "ext_proc.listen: is unix:/no/s: the directory /no does not exist (T, line 2)",
    ),
    (
        "[auth]\nlisten = \":9\"\nheaders = { Edge-Session = \"/user\" }",
        "auth.headers.Edge-Session: cannot be set: gateways or this program need it (and all of cache-control, ",
    ),
    (
        "[auth]\nlisten = \":9\"\nheaders = { Set-Cookie = \"/user\" }",
        "auth.headers.Set-Cookie: cannot be set: gateways or this program need it (and all of cache-control, ",
    ),
    (
        "[auth]\nlisten = \":9\"\nheaders = { Remote-User = \"user\" }",
        "auth.headers.Remote-User: is \"user\", not a JSON pointer such as \"/passport/user\"",
    ),
    (
        "[auth]\nlisten = \":9\"\nheaders = { \"Remote User\" = \"/user\" }",
        "auth.headers: \"Remote User\" is not the name of a header",
    ),
    (
        "[auth]\nlisten = \":9\"\nheaders = { Remote-User = \"/a\", remote-user = \"/b\" }",
        "auth.headers.remote-user: is there twice: names of headers have no case",
    ),
    (
        "[auth]\nlisten = \":9\"\ntoken = \"hunter2\"",
        "auth.token: is not an option: did you mean EDGE_SESSION_AUTH_TOKEN, an environment variable?",
    ),
    (
        "app = \"a\"\nupstream = \":9\"",
        "app: excludes `upstream` and [[route]]: it receives all requests (T, line 1)",
    ),
];

#[test]
fn every_mistake_in_a_file_is_told_with_its_place_and_no_password() {
    let dir = temp_dir("check-");
    let file = dir.path().join("edge-session.toml");
    let mut wrong = Vec::new();
    for (text, said) in MISTAKES {
        fs::write(&file, text).unwrap();
        // The store in the file takes precedence over the variable.
        let launch = Launch::new("memory:").without_env("EDGE_SESSION_STORE");
        let (done, all) = launch.run(dir.path(), &["check", "--config", "edge-session.toml"]);
        let said =
            said.replace("(T,", "(edge-session.toml,").replace("T is", "edge-session.toml is");
        if done || !all.contains(&said) {
            wrong.push(format!("{text}\n\nis to be told:\n{said}\n\n{all}"));
        }
        assert!(!all.contains("hunter2"), "{text}: {all}");
        assert!(!all.contains("panicked") && all.lines().count() <= 4, "{text}: {all}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n----\n"));
}

#[test]
fn mistakes_in_variables_are_told_by_their_names() {
    let dir = temp_dir("check-");
    for (file, text) in [("short", "short"), ("empty", "\n")] {
        std::fs::write(dir.path().join(file), text).unwrap();
    }
    for (name, value, said) in [
        (
            "EDGE_SESSION_COOKIE_MAXAGE",
            "1",
            "EDGE_SESSION_COOKIE_MAXAGE: is not a known variable: did you mean EDGE_SESSION_COOKIE_MAX_AGE?",
        ),
        (
            "EDGE_SESSION_SPEED",
            "1",
            "EDGE_SESSION_SPEED: is not a known variable: correct its name, or unset it",
        ),
        ("EDGE_SESSION_STORE_URL", "memory:", "did you mean EDGE_SESSION_STORE?"),
        (
            "EDGE_SESSION_COOKIE_SAME_SITE",
            "sometimes",
            "cookie.same_site: is \"sometimes\", not one of \"strict\", \"lax\", \"none\", \"auto\" (EDGE_SESSION_COOKIE_SAME_SITE)",
        ),
        (
            "EDGE_SESSION_LIMITS_REQUESTS",
            "many",
            "limits.requests: is a string, not a whole number of 0 or more, such as 60 (EDGE_SESSION_LIMITS_REQUESTS)",
        ),
        (
            "EDGE_SESSION_LOG",
            "warning",
            "EDGE_SESSION_LOG: is \"warning\", not error, warn, info, debug, trace or off",
        ),
        ("EDGE_SESSION_ADMIN_TOKEN", "short", "EDGE_SESSION_ADMIN_TOKEN: is shorter than 16 bytes"),
        (
            "EDGE_SESSION_AUTH_TOKEN_FILE",
            "short",
            "EDGE_SESSION_AUTH_TOKEN: is shorter than 16 bytes in the file in EDGE_SESSION_AUTH_TOKEN_FILE",
        ),
        (
            "EDGE_SESSION_AUTH_TOKEN_FILE",
            "empty",
            "EDGE_SESSION_AUTH_TOKEN: the file in EDGE_SESSION_AUTH_TOKEN_FILE is empty: empty",
        ),
        ("EDGE_SESSION_SECRET", "", "secret: is missing: set EDGE_SESSION_SECRET"),
        (
            "EDGE_SESSION_SECRET",
            "short",
            "secret: number 1 has 5 bytes, fewer than 32: use a longer one, or set allow_weak_secret = true",
        ),
        (
            "EDGE_SESSION_SECRET",
            "a-secret-of-more-than-32-bytes-and,comma",
            "number 2 has 5 bytes, fewer than 16: commas in EDGE_SESSION_SECRET separate secrets.",
        ),
        (
            "EDGE_SESSION_SECRET_FILE",
            "secrets",
            "EDGE_SESSION_SECRET and EDGE_SESSION_SECRET_FILE are both set: unset one",
        ),
        (
            "EDGE_SESSION_CRYPTO_SECRET",
            "a",
            "store.crypto: is not set, but EDGE_SESSION_CRYPTO_SECRET is: sessions would not be encrypted",
        ),
        ("EDGE_SESSION_STORE", "mongo:hunter2", "store.url: mongo… is not one of memory:"),
    ] {
        let (done, all) = Launch::new("memory:").env(name, value).run(dir.path(), &["check"]);
        assert!(!done && all.contains(said), "{name}={value} is to be told:\n{said}\n\n{all}");
        assert!(!all.contains("hunter2"), "{all}");
    }
}

#[test]
fn what_works_and_may_be_no_good_is_a_warning() {
    let dir = temp_dir("check-");
    let quoted = "\"a-secret-of-more-than-32-bytes-in-quotation-marks\"";
    for (file, env, said) in [
        (
            "",
            &[][..],
            "edge-session.toml exists in this directory but is not read: pass --config edge-session.toml",
        ),
        (
            "listen = \":8080\"",
            &[],
            "listen: the built-in view counter lets anyone log in without a password",
        ),
        (
            "",
            &[("EDGE_SESSION_SECRET", "# a comment of more than thirty-two bytes")],
            "secret: number 1 begins with #, but comments are not supported: it is used as a secret",
        ),
        (
            "",
            &[("EDGE_SESSION_SECRET", "SECRET=of-more-than-thirty-two-bytes-xxxxx")],
            "secret: number 1 looks like NAME=value: the whole text is the secret",
        ),
        (
            "",
            &[("EDGE_SESSION_ADMIN_TOKEN", "a-token-of-16-bytes")],
            "EDGE_SESSION_ADMIN_TOKEN is set but has no effect, since admin.listen is not set",
        ),
        (
            "",
            &[("EDGE_SESSION_SECRET", quoted)],
            "secret: number 1 begins and ends with a quotation mark, which is part of the secret",
        ),
        (
            "allow_weak_secret = true",
            &[("EDGE_SESSION_SECRET", "a-short-secret-19-b")],
            "secret: number 1 has 19 bytes: anyone who guesses it can forge sessions",
        ),
        (
            "upstream = \":9\"\n[cookie]\npath = \"/app\"\n[[guard]]\npaths = [\"/\"]\nrequire = \"/u\"",
            &[],
            "guard[0].paths: paths outside cookie.path (/app) have no sessions, so nobody passes there",
        ),
        (
            "upstream = \":9\"\n[gateway]\nidentity = \"/usr\"\n[[guard]]\npaths = [\"/a\"]\nrequire = \"/user\"",
            &[],
            "gateway.identity: is \"/usr\", but guards require \"/user\": sessions are renewed only when the former changes",
        ),
        (
            "upstream = \":9\"\n[gateway]\ntrusted_proxies = [\"0.0.0.0/0\"]",
            &[],
            "gateway.trusted_proxies: 0.0.0.0/0 is every address",
        ),
        (
            "upstream = \":9\"\n[[guard]]\npaths = [\"/\"]\nrequire = \"/u\"",
            &[],
            "guard[0]: covers every path without a login page, so that nobody can log in here",
        ),
        (
            "[admin]\nlisten = \":9090\"",
            &[("EDGE_SESSION_ADMIN_TOKEN", "a-token-of-16-bytes")],
            "admin.listen: 0.0.0.0:9090 has no TLS, so that the admin token crosses the network unencrypted",
        ),
        (
            "",
            &[("EDGE_SESSION_SECRET", "['a-secret-of-more-than-thirty-two-bytes']")],
            "secret: number 1 begins or ends with a bracket, which is part of the secret",
        ),
        (
            "[store]\nurl = \"mongodb://127.0.0.1:9/a?socketTimeoutMS=1\"",
            &[],
            "these options of the store's address have no effect: socketTimeoutMS",
        ),
    ] {
        fs::write(dir.path().join("edge-session.toml"), file).unwrap();
        let mut launch = Launch::new("memory:");
        if file.contains("[store]") {
            launch = launch.without_env("EDGE_SESSION_STORE");
        }
        for (name, value) in env {
            launch = launch.env(name, value);
        }
        let arguments: &[&str] = match file.is_empty() {
            true => &["check"],
            false => &["check", "--config", "edge-session.toml"],
        };
        let (done, all) = launch.run(dir.path(), arguments);
        assert!(done && all.contains(&format!("  warning   {said}")), "{said}\n\n{all}");
    }
}

#[test]
fn check_says_what_counts_and_whether_the_store_answers() {
    let dir = temp_dir("check-");
    let config = "upstream = \":9\"\n[[guard]]\npaths = [\"/a\"]\nrequire = \"/passport/user\"";
    fs::write(dir.path().join("edge.toml"), config).unwrap();
    let database = Database::new();
    let arguments = ["check", "--connect", "--config", "edge.toml"];
    let (done, all) = Launch::new(database.url()).run(dir.path(), &arguments);
    assert!(done, "{all}");
    for line in [
        "  file      edge.toml",
        "  serves    a gateway with 1 route and 1 guard",
        "  identity  /passport/user: sessions get new identifiers when it changes",
        "  the store responds: sessions can be read and written",
    ] {
        assert!(all.contains(line), "{line}\n\n{all}");
    }
    let shared = format!("{config}\n[gateway]\nsessions = \"shared\"");
    fs::write(dir.path().join("shared.toml"), shared).unwrap();
    let launch = Launch::new(database.url());
    let (done, all) = launch.run(dir.path(), &["check", "--config", "shared.toml"]);
    assert!(done && all.contains("the application owns the sessions"), "{all}");
    assert!(!all.contains("new identifiers"), "{all}");
    let nobody = format!("mongodb://u:hunter2@127.0.0.1:{}/a", free_port());
    let launch = Launch::new(&nobody).env("EDGE_SESSION_STORE_TIMEOUT_MS", "200");
    let (done, all) = launch.run(dir.path(), &arguments);
    assert!(!done && all.contains("no MongoDB server can be reached"), "{all}");
    assert!(!all.contains("hunter2"), "{all}");
    assert!(launch.run(dir.path(), &["check"]).0, "without --connect nothing is asked");
}

#[test]
fn who_checks_makes_no_file_for_sessions() {
    let dir = temp_dir("check-");
    let launch = Launch::new("file:data/sessions.redb");
    let (done, all) = launch.run(dir.path(), &["check", "--connect"]);
    assert!(done && all.contains("file data/sessions.redb does not exist yet"), "{all}");
    assert!(!dir.path().join("data").exists());
}

#[test]
fn what_is_too_long_or_not_there_is_told() {
    let dir = temp_dir("check-");
    let file = dir.path().join("edge-session.toml");
    let long = "a".repeat(3000);
    let arguments = ["check", "--config", "edge-session.toml"];
    for (text, said) in [
        (format!("name = \"{long}\""), "name: has 3000 bytes: a cookie's name and value together"),
        (format!("[cookie]\npath = \"/{long}\""), "cookie.path: has more than 1024 bytes"),
        (format!("[cookie]\ndomain = \"{}example\"", "a.".repeat(600)), "cookie.domain: "),
    ] {
        fs::write(&file, &text).unwrap();
        let (done, all) = Launch::new("memory:").run(dir.path(), &arguments);
        assert!(!done && all.contains(said), "{said}: {all}");
    }
    // Problems found by connecting are reported together too.
    let text = "store.url = \"mongodb://a:b:c\"\nupstream = \":9\"\n\
        [gateway]\nerror_pages = \"missing\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"";
    fs::write(&file, text).unwrap();
    let (done, all) =
        Launch::new("memory:").without_env("EDGE_SESSION_STORE").run(dir.path(), &arguments);
    assert!(!done && all.contains("the configuration has 3 problems"), "{all}");
    for place in ["line 1)", "line 4)", "line 5)"] {
        assert!(all.contains(place), "{place}: {all}");
    }
    // One problem may follow from another, above it.
    fs::write(&file, "upstraem = \":9\"\n[[guard]]\npaths = [\"/\"]\nrequire = \"/user\"").unwrap();
    let (done, all) = Launch::new("memory:").run(dir.path(), &arguments);
    let [misspelt, follows] = ["upstraem: is not an option", "there is nothing to guard"];
    let [misspelt, follows] = [misspelt, follows].map(|text| all.find(text).expect(text));
    assert!(!done && misspelt < follows, "{all}");
    fs::remove_file(&file).unwrap();
    let cannot = "cannot read the configuration edge-session.toml: No such file or directory";
    let (done, all) = Launch::new("memory:").run(dir.path(), &arguments);
    assert!(!done && all.contains(cannot), "{all}");
    for name in ["SECRET_FILE", "CRYPTO_SECRET_FILE", "ADMIN_TOKEN_FILE"] {
        let name = format!("EDGE_SESSION_{name}");
        let launch = Launch::new("memory:").env(&name, "missing");
        let launch = launch.without_env("EDGE_SESSION_SECRET");
        let launch = match name.ends_with("N_SECRET_FILE") {
            true => launch,
            false => launch.env("EDGE_SESSION_SECRET", edge_session_tests::SECRET),
        };
        let (done, all) = launch.run(dir.path(), &["check"]);
        let said = format!("cannot read {name}: missing: No such file or directory");
        assert!(!done && all.contains(&said), "{said}: {all}");
    }
}
