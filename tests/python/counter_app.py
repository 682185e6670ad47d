"""A view counter with a login, using only Python's standard library: an application that uses
sessions only through two headers. Prints the port that it listens on.
"""

import json
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        session = json.loads(self.headers["Edge-Session"])
        url = urlsplit(self.path)
        if url.path == "/":
            count = session.get("viewCount", 0) + 1
            self.page(f"you have visited this page {count} times", {"viewCount": count})
        elif url.path == "/account":
            self.page(f"You are {session['user']}")
        elif url.path == "/login":
            back = parse_qs(url.query).get("return", ["/"])[0]
            self.page(
                '<form method="post" action="/login"><input name="username">'
                f'<input type="hidden" name="return" value="{escape(back)}"><button>Log in</button></form>'
            )
        else:
            self.page("There is nothing here.", status=404)

    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.page("", {"user": form["username"][0]}, status=303, location=form["return"][0])

    def page(self, text, change=None, status=200, location=None):
        body = f"<!doctype html><title>app</title><body>{text}</body>".encode()
        self.send_response(status)
        if change is not None:
            self.send_header("Edge-Session-Merge", json.dumps(change))
        if location is not None:
            self.send_header("Location", location)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), App)
print(server.server_port, flush=True)
server.serve_forever()
