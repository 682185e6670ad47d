import json

from store import perform, record


def run(engine, sessions, step, known, change):
    """The loop, up to `ready` or `done`."""
    while step.tag == "store":
        request, exchange = step.payload.request, step.payload.exchange
        reply = perform(sessions, request.tag, request.payload, exchange.id, known)
        outcome = getattr(step.payload, "on-done")
        if reply.tag == "done" and outcome:
            return outcome
        step = engine.resume(exchange, known, change, reply)
    return step.payload


def visit(engine, sessions, cookie):
    """One request of a view counter, from its Cookie header to the page and the outcome: what
    it says of Set-Cookie, of Cache-Control, and of an error to be answered instead."""
    cookies, known = [cookie.encode("latin-1")] if cookie else [], record(loaded=None, current=None)
    request = record(cookies=cookies, path="/", tls=False, secure=False, forwarded_proto=None)
    session = run(engine, sessions, engine.begin(request), known, None)
    if not hasattr(session, "exchange"):
        return None, session  # an outcome: no session here, or a failure

    visits = json.loads(session.data).get("visits", 0) + 1
    edits = [record(key="visits", value=json.dumps(visits))]
    change = record(action="keep", data=edits, cookie=[])

    step = engine.finish(session.exchange, known, change)
    outcome = run(engine, sessions, step, known, change)
    return f"{visits} visits", outcome
