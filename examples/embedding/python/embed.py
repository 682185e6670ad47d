import json

from store import perform, record
from wasmtime.component import Variant


def run(engine, sessions, step, known, change):
    """The loop, up to `ready` or `done`."""
    while step.tag == "store":
        request, exchange = step.payload.request, step.payload.exchange
        reply = perform(sessions, request.tag, request.payload, exchange.id, known)
        outcome = getattr(step.payload, "on-done")
        if reply == "done" and outcome:
            return outcome
        step = engine.resume(exchange, known, change, Variant(reply))
    return step.payload


def visit(engine, sessions, cookie):
    """One request of a view counter, from its Cookie header to its Set-Cookie."""
    cookies, known = [cookie.encode()] if cookie else [], record(loaded=None, current=None)
    request = record(cookies=cookies, path="/", tls=False, secure=False, forwarded_proto=None)
    session = run(engine, sessions, engine.begin(request), known, None)

    visits = json.loads(session.data).get("visits", 0) + 1
    edits = [record(key="visits", value=json.dumps(visits))]
    change = record(action="keep", data=edits, cookie=[])

    step = engine.finish(session.exchange, known, change)
    outcome = run(engine, sessions, step, known, change)
    return visits, session.exchange.origin, getattr(outcome, "set-cookie")
