"""A back end that reports its reading of a request's target: SECRET for /internal or below, PUBLIC
for /public or below, OTHER otherwise. Its argument selects the parser: `raw`, `bottle` or `flask`.
Prints the port that it listens on.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import ThreadingMixIn
from urllib.parse import unquote, urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

KINDS = {"internal": "SECRET", "public": "PUBLIC"}


class Raw(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        # self.path has lost all but one of its leading slashes.
        target = self.requestline.split()[1]
        try:
            # Like file servers: empty segments are ignored.
            path = unquote(urlsplit(target).path).strip("/").split("/")
        except ValueError:
            path = [""]
        body = KINDS.get(path[0], "OTHER").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def environ_as_json(environ):
    return json.dumps({key: value for key, value in environ.items() if isinstance(value, str)})


def bottle_app():
    import bottle

    app = bottle.Bottle()

    @app.get("/public/headers")
    def headers():
        return environ_as_json(bottle.request.environ)

    for name, kind in KINDS.items():
        for rule in (f"/{name}", f"/{name}/<rest:path>", f"/{name}/"):
            app.route(rule, callback=lambda kind=kind, **_: kind)
    app.route("/", callback=lambda: "OTHER")
    app.route("/<rest:path>", callback=lambda **_: "OTHER")
    return app


def flask_app():
    import flask

    app = flask.Flask(__name__, static_folder=None)

    @app.get("/public/headers")
    def headers():
        return environ_as_json(flask.request.environ)

    for name, kind in KINDS.items():
        for rule in (f"/{name}", f"/{name}/", f"/{name}/<path:rest>"):
            app.add_url_rule(rule, rule, lambda kind=kind, **_: kind)
    app.add_url_rule("/", "/", lambda: "OTHER")
    app.add_url_rule("/<path:rest>", "rest", lambda **_: "OTHER")
    return app


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *_):
        pass


class ThreadingWSGIServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


def server(how):
    if how == "raw":
        return ThreadingHTTPServer(("127.0.0.1", 0), Raw)
    if how == "bottle":
        server = ThreadingWSGIServer(("127.0.0.1", 0), QuietHandler)
        server.set_app(bottle_app())
        return server
    from werkzeug.serving import WSGIRequestHandler as Handler
    from werkzeug.serving import make_server

    class Quiet(Handler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *_):
            pass

    return make_server("127.0.0.1", 0, flask_app(), threaded=True, request_handler=Quiet)


running = server(sys.argv[1])
print(running.server_port, flush=True)
running.serve_forever()
