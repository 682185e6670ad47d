import json

from store import load, perform, record


def visit(engine, sessions, cookie):
    """One request of a view counter, from its Cookie header to the page and the outcome: what it
    says of Set-Cookie and of Cache-Control. A failure is raised."""
    cookies, stored = cookie.encode("latin-1"), None
    request = record(cookies=cookies, path="/", tls=False, secure=False, forwarded_proto=None)
    begun = engine.begin(request)
    while begun.tag == "load":
        stored = load(sessions, begun.payload.id)
        begun = engine.loaded(begun.payload, stored)
    if begun.tag == "none":
        return "no session here", None

    session = begun.payload
    visits = json.loads(session.text or stored.data).get("visits", 0) + 1
    edits = [record(key="visits", value=json.dumps(visits))]
    change = record(action="keep", data=edits, cookie=[])

    plan, seen, at = engine.finish(session.visit, stored, change), stored, 0
    while at < len(plan.writes):
        obstacle = perform(sessions, plan.writes[at], seen)
        if obstacle is None:
            at += 1
            continue
        if obstacle.tag == "conflict":
            seen = obstacle.payload
        plan, at = engine.resume(plan.visit, stored, change, at, obstacle), 0
    return f"{visits} visits", plan.outcome
