"""Waits for a server and visits it: one visitor's visits are counted 1, 2, 3, another's from 1."""

import sys
import time
import urllib.error
import urllib.request
from http.cookiejar import CookieJar

url = sys.argv[1]


def visitor() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))


def visit(who: urllib.request.OpenerDirector) -> str:
    return who.open(url, timeout=10).read().decode()


deadline = time.monotonic() + 60
while True:
    try:
        visit(visitor())
        break
    except OSError as error:  # URLError is one
        if isinstance(error, urllib.error.HTTPError) or time.monotonic() > deadline:
            sys.exit(f"{url}: {error}")
        time.sleep(0.1)

one = visitor()
for who, count in [(one, 1), (one, 2), (one, 3), (visitor(), 1), (one, 4)]:
    page = visit(who)
    if f"you have visited this page {count} time" not in page:
        sys.exit(f"visit {count}: {page}")
