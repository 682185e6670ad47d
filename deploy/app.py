"""An application behind a gateway that asks edge-session: it reads its session from the header
Edge-Session and changes it by the session API.

    EDGE_SESSION_AUTH_TOKEN_FILE=token python3 app.py    # on http://127.0.0.1:3000
"""

import json
import os
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

API = "http://127.0.0.1:9091/session"
try:
    with open(os.environ["EDGE_SESSION_AUTH_TOKEN_FILE"]) as file:
        TOKEN = file.read().strip()
except KeyError:
    sys.exit("set EDGE_SESSION_AUTH_TOKEN_FILE to the file of the token")


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def change_session(self, method, path="", change=None):
        """Returns the headers to relay to the visitor."""
        headers = {
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": "application/json",
            "Cookie": self.headers.get("Cookie", ""),
            "X-Forwarded-Proto": self.headers.get("X-Forwarded-Proto", "http"),
        }
        body = None if change is None else json.dumps(change).encode()
        request = urllib.request.Request(API + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                cookie = answer.headers.get("Set-Cookie")
        except urllib.error.HTTPError as error:
            # It says what is wrong. The gateway answers the visitor with 502.
            print(f"edge-session: {error}: {error.read().decode()}", file=sys.stderr)
            raise
        # A response with a visitor's cookie must not be cached.
        return {"Set-Cookie": cookie, "Cache-Control": "no-store"} if cookie else {}

    def answer(self, text, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        session = json.loads(self.headers.get("Edge-Session", "{}"))
        path = urlsplit(self.path).path
        if path == "/":
            count = session.get("viewCount", 0) + 1
            relayed = self.change_session("PATCH", change={"viewCount": count})
            self.answer(f"you have visited this page {count} times", **relayed)
        elif path == "/login":
            self.answer('<form method="post"><input name="user"><button>Log in</button></form>')
        elif path == "/account":
            # A guard lets only visitors through whose session has a user.
            self.answer('<form method="post" action="/logout"><button>Log out</button></form>')
        else:
            self.answer("Good-bye." if path == "/bye" else "There is nothing here.")

    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        # A real application checks a password here.
        if "user" not in form:
            return self.answer("Who are you?", status=400)
        relayed = self.change_session("PATCH", change={"user": form["user"][0]})
        self.answer("", status=303, Location="/account", **relayed)


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        # Gateways drop connections that they no longer need.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


Server(("127.0.0.1", 3000), App).serve_forever()
