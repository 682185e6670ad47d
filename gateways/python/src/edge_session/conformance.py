"""The test suite for stores, including your own: the promises of `Store`.

await edge_session.conformance.check(MemoryStore())
"""

from collections.abc import Awaitable, Callable
from typing import Any

from anyio import create_task_group

from .store import Content, Store, Stored, now

_LATER = 4_102_444_800_000  # the year 2100
_EVEN_LATER = _LATER + 60_000
_AT_ONCE = 64

# Some databases check that a session's text is JSON.
_A, _B, _C = '{"is":"a"}', '{"is":"b"}', '{"is":"c"}'


async def check(store: Store) -> None:
    """Checks every promise of a store.

    Raises `AssertionError` with the one that is broken. Sessions whose identifiers begin with
    `conformance-`, in upper or lower case, are overwritten and deleted.
    """
    await _creating(store)
    await _replacing(store)
    await _replacing_when_expected(store)
    await _touching(store)
    await _deleting(store)
    await _expired_sessions_are_missing(store)
    await _texts_survive(store)
    await _identifiers_differ(store)
    await _one_of_many_wins(store)
    await _one_of_many_creates(store)
    await _one_of_many_deletes(store)
    await _touches_leave_changes(store)


async def _promise(what: str, operation: Awaitable[Any], expected: Any) -> None:
    actual = await operation
    if isinstance(actual, Stored):
        actual = _plain(actual)
    if actual != expected:
        raise AssertionError(f"{what}: {actual!r}, not {expected!r}")


def _plain(stored: Stored) -> Stored:
    """Returns what every store returns: some round an expiry up to a second, count from their own
    clock, or know the time of the last touch."""
    expires = stored.expires and round(stored.expires / 10_000) * 10_000
    return Stored(stored.data, expires)


def _content(data: str, expires: int = _LATER) -> Content:
    return Content(data, expires)


def _stored(data: str, expires: int = _LATER) -> Stored:
    return Stored(data, expires)


async def _having(store: Store, id: str, data: str) -> str:
    await store.replace(f"conformance-{id}", _content(data), None)
    return f"conformance-{id}"


async def _without(store: Store, id: str) -> str:
    await store.delete(f"conformance-{id}", None)
    return f"conformance-{id}"


async def _creating(store: Store) -> None:
    id = await _without(store, "create")
    await _promise("what was never stored is missing", store.load(id), None)
    await _promise("creating stores", store.create(id, _content(_A)), "done")
    await _promise("what was stored is found", store.load(id), _stored(_A))
    await _promise("creating never overwrites", store.create(id, _content(_B)), "taken")
    await _promise("after a refused creation the old text is there", store.load(id), _stored(_A))
    await _without(store, "create")


async def _replacing(store: Store) -> None:
    id = await _without(store, "replace")
    await _promise("replacing creates", store.replace(id, _content(_A), None), "done")
    await _promise("replacing overwrites", store.replace(id, _content(_B), None), "done")
    await _promise("the last text is found", store.load(id), _stored(_B))
    replaced = store.replace(id, _content(_C, _EVEN_LATER), None)
    await _promise("so does it with another expiry", replaced, "done")
    await _promise("which is found, too", store.load(id), _stored(_C, _EVEN_LATER))
    await _without(store, "replace")


async def _replacing_when_expected(store: Store) -> None:
    id = await _having(store, "expect", _A)
    await _promise("the expected text is replaced", store.replace(id, _content(_B), _A), "done")
    await _promise("another text is a conflict", store.replace(id, _content(_C), _A), _stored(_B))
    await _promise("after a conflict nothing has changed", store.load(id), _stored(_B))
    await _promise("the same text can be stored again", store.replace(id, _content(_B), _B), "done")
    replaced = store.replace(id, _content(_C, _EVEN_LATER), _B)
    await _promise("so can another, with another expiry", replaced, "done")
    await _promise("which is found, too", store.load(id), _stored(_C, _EVEN_LATER))
    await _without(store, "expect")
    missing = store.replace(id, _content(_C), _B)
    await _promise("a missing session is not created", missing, "missing")
    await _promise("nor is it there afterwards", store.load(id), None)


async def _touching(store: Store) -> None:
    id = await _having(store, "touch", _A)
    await _promise("touching moves the expiry", store.touch(id, _EVEN_LATER), "done")
    await _promise("and leaves the text", store.load(id), _stored(_A, _EVEN_LATER))
    await _promise("touching twice is fine", store.touch(id, _EVEN_LATER), "done")
    await _without(store, "touch")
    await _promise("touching never creates", store.touch(id, _LATER), "missing")
    await _promise("nor is it there afterwards", store.load(id), None)


async def _deleting(store: Store) -> None:
    id = await _having(store, "delete", _A)
    await _promise("another text is not deleted", store.delete(id, _B), _stored(_A))
    await _promise("the expected one is", store.delete(id, _A), "done")
    await _promise("what was deleted is missing", store.load(id), None)
    await _promise("deleting nothing says so", store.delete(id, None), "missing")
    await _promise("also when something was expected", store.delete(id, _A), "missing")
    await _having(store, "delete", _A)
    await _promise("without a condition it is deleted", store.delete(id, None), "done")
    await _promise("and is missing then", store.load(id), None)


async def _expired_sessions_are_missing(store: Store) -> None:
    id = await _having(store, "expired", _A)
    await _promise("a session can be made to end", store.touch(id, now() - 1000), "done")
    await _promise("an expired session is not loaded", store.load(id), None)
    await _promise("nor touched", store.touch(id, _LATER), "missing")
    await _promise("nor replaced", store.replace(id, _content(_B), _A), "missing")
    await _promise("nor deleted", store.delete(id, _A), "missing")
    await _promise("also without a condition", store.delete(id, None), "missing")
    await _promise("nor brought back by any of these", store.load(id), None)
    await _promise("its identifier is free", store.create(id, _content(_A)), "done")
    await _promise("and is in use then", store.create(id, _content(_B)), "taken")
    await _promise("it can end again", store.touch(id, now() - 1000), "done")
    replaced = store.replace(id, _content(_B), None)
    await _promise("without a condition it is replaced", replaced, "done")
    await _promise("and is there then", store.load(id), _stored(_B))
    await _without(store, "expired")
    past = now() - 1000
    created = store.create(id, _content(_A, past))
    await _promise("a session may be over when it is created", created, "done")
    await _promise("and is not loaded", store.load(id), None)
    replaced = store.replace(id, _content(_A, past), None)
    await _promise("or when it is replaced", replaced, "done")
    await _promise("and is not loaded then", store.load(id), None)
    await _having(store, "expired", _A)
    replaced = store.replace(id, _content(_B, past), _A)
    await _promise("also if a text is expected", replaced, "done")
    await _promise("and is not loaded after that", store.load(id), None)


async def _texts_survive(store: Store) -> None:
    long = f'{{"long":"{"x" * ((1 << 20) - 20)}"}}'
    for text in (
        "{}",
        " { } ",
        '{"a":"\\u0000"}',
        '{"a":"\\ud800 é \U0010ffff"}',
        '{"\\"\'$.\\\\%s":1.0,"b":1,"b":2}',
        long,
    ):
        id = await _having(store, "text", text)
        await _promise("a text comes back exactly", store.load(id), _stored(text))
        await _promise("and is recognised", store.replace(id, _content(_A), text), "done")
    for odd in ("$where", "a.b", "é", "'; --", "../x", "%s"):
        id = await _having(store, odd, _A)
        await _promise("any text can be an identifier", store.load(id), _stored(_A))
        await _promise("and be deleted", store.delete(id, None), "done")
    await _without(store, "text")


async def _identifiers_differ(store: Store) -> None:
    similar = ("conformance-e", "conformance-E", "conformance-e ", "CONFORMANCE-E")
    for id in similar:
        await store.delete(id, None)
    for number, id in enumerate(similar):
        created = store.create(id, _content(f'{{"is":{number}}}'))
        await _promise("each identifier is another session", created, "done")
    for number, id in enumerate(similar):
        await _promise("with its own text", store.load(id), _stored(f'{{"is":{number}}}'))
        await _promise("and its own end", store.delete(id, None), "done")


async def _at_once(operation: Callable[[int], Awaitable[Any]]) -> list[int]:
    """Returns the numbers of the concurrent operations that are done."""
    done: list[int] = []

    async def run(number: int) -> None:
        if await operation(number) == "done":
            done.append(number)

    async with create_task_group() as running:
        for number in range(_AT_ONCE):
            running.start_soon(run, number)
    return done


async def _one_of_many_wins(store: Store) -> None:
    id = await _having(store, "race", _A)
    expected = _A
    for round in range(8):
        texts = [f'{{"by":"{round}-{number}"}}' for number in range(_AT_ONCE)]

        def write(number: int, texts: list[str] = texts, expected: str = expected) -> Any:
            return store.replace(id, _content(texts[number]), expected)

        done = await _at_once(write)
        if len(done) != 1:
            raise AssertionError(
                f"of many that expect the same text, exactly one replaces it: {len(done)}"
            )
        expected = texts[done[0]]
        await _promise("it is that one's", store.load(id), _stored(expected))
    await _without(store, "race")


async def _one_of_many_creates(store: Store) -> None:
    for round in range(8):
        id = await _without(store, "race")
        if round % 2:
            # The place of a session that has expired is free, too.
            await _having(store, "race", _A)
            await _promise("a session can be made to end", store.touch(id, now() - 1000), "done")

        def create(number: int, id: str = id) -> Any:
            return store.create(id, _content(f'{{"by":{number}}}'))

        done = await _at_once(create)
        if len(done) != 1:
            raise AssertionError(f"of many that create a session, exactly one does: {len(done)}")
        await _promise("it is that one's", store.load(id), _stored(f'{{"by":{done[0]}}}'))
    await _without(store, "race")


async def _one_of_many_deletes(store: Store) -> None:
    for _ in range(8):
        id = await _having(store, "race", _A)

        def change(number: int, id: str = id) -> Any:
            return store.replace(id, _content(_B), _A) if number % 2 else store.delete(id, _A)

        done = await _at_once(change)
        if len(done) != 1:
            raise AssertionError(
                f"of many that delete or replace the same text, exactly one does: {len(done)}"
            )
        expected = _stored(_B) if done[0] % 2 else None
        await _promise("what that one did is there", store.load(id), expected)
    await _without(store, "race")


async def _touches_leave_changes(store: Store) -> None:
    # The change is the first, one in between, or the last operation.
    for at in range(0, _AT_ONCE, 9):
        id = await _having(store, "race", _A)

        def change(number: int, id: str = id, at: int = at) -> Any:
            return store.replace(id, _content(_B), _A) if number == at else store.touch(id, _LATER)

        if len(await _at_once(change)) != _AT_ONCE:
            raise AssertionError("touches and a change do not hinder each other")
        await _promise("a touch does not undo a change", store.load(id), _stored(_B))

        def end(number: int, id: str = id, at: int = at) -> Any:
            return store.delete(id, None) if number == at else store.touch(id, _LATER)

        if at not in await _at_once(end):
            raise AssertionError("touches do not hinder a deletion")
        await _promise("a touch does not undo a deletion", store.load(id), None)
    await _without(store, "race")
