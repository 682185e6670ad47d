"""Visits, counted by session.wasm in wasmtime: `python embed.py SESSION.WASM`."""

import json
import sys
import time

from wasmtime import Engine, Store, WasiConfig
from wasmtime.component import Component, Linker, Record, Variant

runtime, sessions = Engine(), {}
instance, linker = Store(runtime), Linker(runtime)
instance.set_wasi(WasiConfig())  # a clock and randomness: the component asks for nothing else
linker.add_wasip2()
exports = linker.instantiate(instance, Component.from_file(runtime, sys.argv[1]))
interface = exports.get_export_index(instance, "edge:session/engine@0.1.0")


def call(name, *values):
    index = exports.get_export_index(instance, name, interface)
    return exports.get_func(instance, index)(instance, *values)


def record(**fields):
    made = Record()
    vars(made).update((name.replace("_", "-"), value) for name, value in fields.items())
    return made


def perform(operation, value, id, known):
    """The five store operations, on a dictionary."""
    found = sessions.get(id)
    if found and found.expires <= time.time() * 1000:
        found = None
    if operation == "load":
        known.loaded = found
        return "found" if found else "missing"
    if operation == "create" and found:
        return "taken"
    only_known = value is True or getattr(value, "only-known", False)
    if not found and (only_known or operation in ("touch", "delete")):
        return "missing"
    if only_known and found.data != (known.current or known.loaded).data:
        known.current = found
        return "conflict"
    if operation == "delete":
        del sessions[id]
    elif operation == "touch":
        sessions[id] = record(data=found.data, expires=value, touched=None)
    else:
        content = getattr(value, "content", value)
        sessions[id] = record(data=content.data, expires=content.expires, touched=None)
    return "done"


def run(step, known, change):
    """The loop, up to `ready` or `done`."""
    while step.tag == "store":
        request, exchange = step.payload.request, step.payload.exchange
        reply = perform(request.tag, request.payload, exchange.id, known)
        outcome = getattr(step.payload, "on-done")
        if reply == "done" and outcome:
            return outcome
        step = call("[method]engine.resume", engine, exchange, known, change, Variant(reply))
    return step.payload


def visit(cookie):
    """One request, from its Cookie header to its Set-Cookie."""
    cookies, known = [cookie.encode()] if cookie else [], record(loaded=None, current=None)
    request = record(cookies=cookies, path="/", tls=False, secure=False, forwarded_proto=None)
    session = run(call("[method]engine.begin", engine, request), known, None)
    visits = json.loads(session.data).get("visits", 0) + 1
    edits = [record(key="visits", value=json.dumps(visits))]
    change = record(action="keep", data=edits, cookie=[])
    step = call("[method]engine.finish", engine, session.exchange, known, change)
    set_cookie = getattr(run(step, known, change), "set-cookie")
    return visits, session.exchange.origin, set_cookie.split(";")[0] if set_cookie else cookie


options = call("defaults", "safe")
options.secrets = [b"only for this example: 32 bytes or more"]
engine, cookie = call("open", options), None  # or a list of all that is wrong with the options
for _ in range(3):
    visits, _, cookie = visit(cookie)
    print(visits)
print(visit(cookie.replace("s%3A", "s%3Ax"))[1])  # forged
