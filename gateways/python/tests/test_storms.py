"""Many concurrent requests that change one session."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from http.cookies import SimpleCookie
from typing import Any

import pytest
from test_stores import database  # noqa: F401

from edge_session import Content, MemoryStore, SessionMiddleware, Stored, _turns, sessions
from edge_session._contract import Change, Outcome, Plan, State, Visit, Write
from edge_session._turns import NoTurn, Turns
from edge_session.mongodb import MongoStore

pytestmark = pytest.mark.anyio

SECRET = "an unguessable secret of more than 32 bytes"


class Counting:
    """A remote store: other requests run during every operation."""

    def __init__(self, store: Any = None) -> None:
        self.store = MemoryStore() if store is None else store
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = getattr(self.store, name)

        async def ask(*args: Any) -> Any:
            self.asked.append(name)
            await asyncio.sleep(0)
            answer = await operation(*args)
            await asyncio.sleep(0)
            return answer

        return ask


class Visits:
    """Requests to an application that sets the requested key once `go` is set."""

    def __init__(self, store: Any, options: Any = None) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.loaded = 0
        self.application = SessionMiddleware(self.endpoint, SECRET, store=store, options=options)
        self.sessions = self.application._sessions

    async def endpoint(self, scope: Any, receive: Any, send: Any) -> None:
        session = scope["state"]["session"]
        key = scope["path"][1:]
        if key in ("destroy", "renew"):
            getattr(session, key)()
        elif key:
            session[key] = True
        self.loaded += 1
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": ",".join(session).encode()})

    async def visit(self, key: str, cookie: bytes = b"") -> tuple[int, bytes, bytes]:
        """Returns the status, the body, and the cookie that is then valid."""
        messages: list[Any] = []

        async def send(message: Any) -> None:
            messages.append(message)

        headers = [(b"cookie", cookie)] if cookie else []
        await self.application({"type": "http", "path": f"/{key}", "headers": headers}, None, send)
        for name, value in messages[0]["headers"]:
            if name == b"set-cookie":
                (morsel,) = SimpleCookie(value.decode()).values()
                cookie = f"connect.sid={morsel.coded_value}".encode()
        return messages[0]["status"], messages[1]["body"], cookie

    async def at_once(self, keys: list[str], cookie: bytes) -> list[asyncio.Task[Any]]:
        """Waits until all have loaded the session and none has changed it yet."""
        self.go.clear()
        self.loaded = 0
        tasks = [asyncio.create_task(self.visit(key, cookie)) for key in keys]
        async with asyncio.timeout(30):
            while self.loaded < len(keys):
                await asyncio.sleep(0.001)
        return tasks


def statuses(answers: list[tuple[int, bytes, bytes]]) -> set[int]:
    return {status for status, _, _ in answers}


async def storm(store: Counting, count: int) -> None:
    visits = Visits(store)
    _, _, cookie = await visits.visit("first")
    store.asked.clear()
    keys = [f"k{number}" for number in range(count)]
    tasks = await visits.at_once(keys, cookie)
    visits.go.set()
    assert statuses(await asyncio.gather(*tasks)) == {200}
    assert len(store.asked) <= 3 * count
    _, body, _ = await visits.visit("", cookie)
    assert set(body.decode().split(",")) == {"first", *keys}
    assert len(visits.sessions._turns) == 0


async def test_a_thousand_changes_of_one_session_at_once_ask_the_store_thrice_each() -> None:
    await storm(Counting(), 1000)


async def test_so_they_do_in_mongodb(database: Any) -> None:  # noqa: F811
    await storm(Counting(MongoStore(database.client, db_name=database.name)), 300)


async def test_who_visits_beside_a_storm_does_not_wait_for_it() -> None:
    store = Counting()
    visits = Visits(store)
    _, _, cookie = await visits.visit("first")
    _, _, other = await visits.visit("another")
    tasks = await visits.at_once([f"k{number}" for number in range(300)], cookie)
    visits.go.set()
    waits = []
    while not all(task.done() for task in tasks):
        before = len(store.asked)
        status, _, _ = await visits.visit("more", other)
        waits.append(len(store.asked) - before)
        assert status == 200
    # One operation of the storm is in progress at a time, and a visit has two of its own. The first
    # visit waits behind all requests that are about to finish.
    assert len(waits) > 20 and max(waits[1:]) <= 10


async def test_a_logout_in_a_storm_is_not_undone() -> None:
    store = Counting()
    visits = Visits(store)
    _, _, cookie = await visits.visit("first")
    keys = [f"k{number}" for number in range(20)]
    tasks = await visits.at_once([*keys[:10], "destroy", *keys[10:]], cookie)
    visits.go.set()
    assert statuses(await asyncio.gather(*tasks)) == {200}
    assert len(store.store) == 0 and len(visits.sessions._turns) == 0


async def test_a_renewal_in_a_storm_takes_with_it_what_came_before() -> None:
    store = Counting()
    visits = Visits(store)
    _, _, cookie = await visits.visit("first")
    keys = [f"k{number}" for number in range(10)]
    tasks = await visits.at_once([*keys, "renew", "late"], cookie)
    visits.go.set()
    answers = await asyncio.gather(*tasks)
    assert statuses(answers) == {200}
    new = answers[len(keys)][2]
    assert new != cookie
    _, body, _ = await visits.visit("", new)
    assert set(body.decode().split(",")) == {"first", *keys, "late"}
    # The session, and a short-lived note about its move.
    assert len(store.store) == 2 and len(visits.sessions._turns) == 0


class Held(Counting):
    """It does not reply to a write until released."""

    def __init__(self) -> None:
        super().__init__()
        self.is_held = asyncio.Event()
        self.let = asyncio.Event()
        self.let.set()

    async def replace(self, *args: Any) -> Any:
        self.asked.append("replace")
        self.is_held.set()
        await self.let.wait()
        return await self.store.replace(*args)


async def held(keys: list[str]) -> tuple[Held, Visits, bytes, list[asyncio.Task[Any]]]:
    """The first one is in progress, and the others wait for their turn."""
    store = Held()
    visits = Visits(store)
    _, _, cookie = await visits.visit("first")
    store.is_held.clear()
    store.let.clear()
    tasks = await visits.at_once(keys, cookie)
    visits.go.set()
    await store.is_held.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    return store, visits, cookie, tasks


async def test_a_waiter_whose_client_leaves_holds_nobody_up_and_its_change_is_stored() -> None:
    store, visits, cookie, tasks = await held(["a", "b", "c", "d"])
    tasks[0].cancel()
    tasks[2].cancel()
    store.let.set()
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [
        True,
        False,
        True,
        False,
    ]
    _, body, _ = await visits.visit("", cookie)
    assert body == b"first,a,b,c,d"
    assert store.asked.count("replace") == 4


async def test_a_request_behind_too_many_others_fails_and_they_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_turns, "MAX_WAITING", 2)
    store, visits, cookie, tasks = await held(["a", "b", "c", "d"])
    status, _, _ = await tasks[3]
    assert status == 503
    store.let.set()
    assert statuses(await asyncio.gather(*tasks[:3])) == {200}
    _, body, _ = await visits.visit("", cookie)
    assert body == b"first,a,b,c"


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_turns, "PATIENCE", 0.01)
    store, visits, _, tasks = await held(["a", "b"])
    status, _, _ = await tasks[1]
    assert status == 503
    store.let.set()
    assert (await tasks[0])[0] == 200
    assert len(visits.sessions._turns) == 0


async def test_two_processes_lose_nothing_and_none_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_PAUSE", 0)
    store = Counting()
    one, two = Visits(store), Visits(store)
    _, _, cookie = await one.visit("first")
    keys = [f"k{number}" for number in range(50)]
    tasks = await one.at_once(keys[:25], cookie) + await two.at_once(keys[25:], cookie)
    one.go.set()
    two.go.set()
    assert statuses(await asyncio.gather(*tasks)) == {200}
    _, body, _ = await one.visit("", cookie)
    assert set(body.decode().split(",")) == {"first", *keys}


class Busy(Counting):
    """Another process changes every session just before it is replaced."""

    async def replace(self, id: str, content: Content, expected: str | None) -> Any:
        stored = await self.store.load(id)
        text = stored.data.replace('"other":', '"other":1')
        await self.store.replace(id, Content(text, stored.expires), None)
        return await self.store.replace(id, content, expected)


async def test_pauses_between_processes_are_random_and_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    longest: list[float] = []
    monkeypatch.setattr(sessions.random, "uniform", lambda least, most: longest.append(most) or 0)
    store = Busy()
    visits = Visits(store)
    _, _, cookie = await visits.visit("other")
    (id,) = store.store._sessions
    stored = store.store._sessions[id]
    text = stored.data.replace("true", "1")
    await store.store.replace(id, Content(text, stored.expires), None)
    status, _, _ = await visits.visit("mine", cookie)
    assert status == 503
    # There is no pause after the first conflict: the other request may simply have been faster.
    assert longest[:3] == [0.004, 0.008, 0.016]
    assert max(longest) == 0.256
    assert len(visits.sessions._turns) == 0


# ------------------------------------------------------------------------- the turns ----

LEFT = Stored("text", None)


async def test_turns_are_had_in_the_order_of_coming_and_end_without_a_trace() -> None:
    turns = Turns()
    first = await turns.enter("a")
    order: list[int] = []

    async def wait(number: int) -> Stored | None:
        turn = await turns.enter("a")
        order.append(number)
        left, turn.left = turn.left, None
        turn.end()
        return left

    waiting = [asyncio.create_task(wait(number)) for number in range(3)]
    other = await turns.enter("b")
    other.end()
    await asyncio.sleep(0)
    first.left = LEFT
    first.end()
    assert await asyncio.gather(*waiting) == [LEFT, None, None]
    assert order == [0, 1, 2] and len(turns) == 0


@pytest.mark.parametrize("is_given", [False, True])
async def test_a_turn_goes_past_one_that_has_left(is_given: bool) -> None:
    turns = Turns()
    first = await turns.enter("a")
    first.left = LEFT
    leaving = asyncio.create_task(turns.enter("a"))
    following = asyncio.create_task(turns.enter("a"))
    await asyncio.sleep(0)
    if is_given:
        # It has the turn, but does not know it yet when it is cancelled.
        first.end()
        leaving.cancel()
    else:
        leaving.cancel()
        first.end()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    async with asyncio.timeout(5):
        turn = await following
    assert turn.left == LEFT
    turn.end()
    assert len(turns) == 0


async def test_who_leaves_between_two_turns_has_neither() -> None:
    writes = [Write(id, ("delete", None), True) for id in ("a", "b")]
    plan = Plan(Visit("a", State(0, None)), writes, Outcome("destroyed", None, None, False))
    visits = Visits(MemoryStore())
    visits.sessions._engine.finish = lambda *_: plan  # type: ignore[method-assign]
    for id in ("a", "b"):
        await visits.sessions._store.create(id, Content("text", 4_102_444_800_000))
    turns = visits.sessions._turns
    theirs = await turns.enter("b")
    change = Change("destroy", ("nothing", None), [])
    ours = asyncio.create_task(visits.sessions._finish(plan.visit, LEFT, change))
    await asyncio.sleep(0)
    following = await turns.enter("a")  # it is over with this one
    ours.cancel()
    with suppress(asyncio.CancelledError):
        await ours
    assert len(turns) == 2
    theirs.end()
    following.end()
    assert len(turns) == 0


async def test_one_that_has_left_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_turns, "MAX_WAITING", 1)
    turns = Turns()
    first = await turns.enter("a")
    leaving = asyncio.create_task(turns.enter("a"))
    await asyncio.sleep(0)
    with pytest.raises(NoTurn):
        await turns.enter("a")
    leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving
    following = asyncio.create_task(turns.enter("a"))
    await asyncio.sleep(0)
    first.end()
    (await following).end()
    assert len(turns) == 0
