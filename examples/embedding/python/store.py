import time

from wasmtime.component import Record, Variant


def record(**fields):
    made = Record()
    vars(made).update((name.replace("_", "-"), value) for name, value in fields.items())
    return made


def perform(sessions, operation, value, id, known):
    """The five store operations, on a dictionary."""
    found, last = sessions.get(id), known.current or known.loaded
    if found and found.expires <= time.time() * 1000:
        found = None
    if operation == "load":
        known.loaded = found
        return Variant("found" if found else "missing")
    if operation == "create" and found:
        return Variant("taken")
    only_known = value is True or getattr(value, "only-known", False)
    if not found and (only_known or operation in ("touch", "delete")):
        return Variant("missing")
    if only_known and found.data != last.data:
        known.current = found
        return Variant("conflict")
    if operation == "delete":
        del sessions[id]
    elif operation == "touch":
        sessions[id] = record(data=found.data, expires=value, touched=None)
    else:
        content = getattr(value, "content", value)
        sessions[id] = record(data=content.data, expires=content.expires, touched=None)
    return Variant("done")
