"""The five store operations, on a dictionary."""

import time

from wasmtime.component import Record, Variant


def record(**fields):
    made = Record()
    vars(made).update((name.replace("_", "-"), value) for name, value in fields.items())
    return made


def load(sessions, id):
    stored = sessions.get(id)
    return stored if stored and stored.expires > time.time() * 1000 else None


def perform(sessions, write, seen):
    """Returns the obstacle that a write met; None if it is done."""
    operation, value = write.operation.tag, write.operation.payload
    if_unchanged = getattr(write, "if-unchanged")
    stored = load(sessions, write.id)
    if operation == "create" and stored:
        return Variant("taken")
    if not stored and (if_unchanged or operation in ("touch", "delete", "load")):
        return Variant("missing")
    if operation == "load" or (if_unchanged and stored.data != seen.data):
        return Variant("conflict", stored)
    if operation == "delete":
        del sessions[write.id]
    elif operation == "touch":
        sessions[write.id] = record(data=stored.data, expires=value, touched=None)
    else:
        sessions[write.id] = record(data=value.data, expires=value.expires, touched=None)
    return None
