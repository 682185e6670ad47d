"""Concurrent requests of one visitor."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import Visitor, asgi, deeds
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edge_session import MemoryStore

pytestmark = pytest.mark.anyio

New = Callable[..., Visitor]


def gated(store: MemoryStore, **settings: Any) -> tuple[Any, asyncio.Event, asyncio.Event]:
    """Returns an application whose `/slow` waits between its change and its response."""
    waiting, go = asyncio.Event(), asyncio.Event()

    async def endpoint(request: Request) -> Response:
        session = request.state.session
        for key, value in request.query_params.items():
            if key == "do":
                getattr(session, value)()
            else:
                session[key] = value
        if request.url.path == "/slow":
            waiting.set()
            await go.wait()
        return JSONResponse(dict(session))

    return asgi(endpoint, store=store, **settings), waiting, go


async def overtaken(visitor: New, slow: str, quick: str, **settings: Any) -> tuple[Any, Any]:
    """Returns the data after `quick` was answered while `slow` ran, and the response to `slow`."""
    store = MemoryStore()
    application, waiting, go = gated(store, **settings)
    one = visitor(application)
    await one.http.get("/?start=1")
    cookies = dict(one.http.cookies)
    task = asyncio.create_task(one.http.get(f"/slow?{slow}"))
    await waiting.wait()
    await one.http.get(f"/?{quick}")
    go.set()
    answer = await task
    new = dict(one.http.cookies) or cookies
    one.http.cookies.clear()
    one.http.cookies.update(new)
    return (await one.http.get("/")).json(), answer


async def test_changes_of_different_keys_are_merged(visitor: New) -> None:
    data, _ = await overtaken(visitor, "a=slow", "b=quick")
    assert data == {"start": "1", "b": "quick", "a": "slow"}


async def test_of_the_same_key_the_last_one_counts(visitor: New) -> None:
    data, _ = await overtaken(visitor, "a=slow", "a=quick")
    assert data == {"start": "1", "a": "slow"}


async def test_overwrite_is_what_express_does(visitor: New) -> None:
    options = {"preset": "express"}
    data, _ = await overtaken(visitor, "a=slow", "b=quick", options=options)
    assert data == {"start": "1", "a": "slow"}


async def test_a_logout_is_not_undone(visitor: New) -> None:
    data, answer = await overtaken(visitor, "a=slow", "do=destroy")
    assert data == {} and answer.status_code == 200


async def test_a_change_beside_a_renewal_is_in_the_session_that_goes_on(visitor: New) -> None:
    data, _ = await overtaken(visitor, "a=slow", "do=renew")
    assert data == {"start": "1", "a": "slow"}


async def test_a_renewal_takes_what_was_stored_meanwhile(visitor: New) -> None:
    data, _ = await overtaken(visitor, "do=renew&a=slow", "b=quick")
    assert data == {"start": "1", "b": "quick", "a": "slow"}


async def test_many_at_once_lose_nothing(visitor: New) -> None:
    store = MemoryStore()
    arrived = 0
    all_here = asyncio.Event()

    async def endpoint(request: Request) -> Response:
        nonlocal arrived
        request.state.session[request.query_params["key"]] = True
        arrived += 1
        if arrived == 64:
            all_here.set()
        if arrived > 1:
            await all_here.wait()
        return JSONResponse({})

    arrived = 0
    one = visitor(asgi(endpoint, store=store))
    await one.http.get("/?key=first")
    arrived = 1
    await asyncio.gather(*(one.http.get(f"/?key=k{n}") for n in range(63)))
    (stored,) = store._sessions.values()
    assert stored.data.count(":true") >= 64


def test_threads_may_share_it() -> None:
    store = MemoryStore()
    application = deeds(store=store)

    async def visit(number: int) -> Any:
        one = Visitor(application)
        for count in range(20):
            assert (await one(set={"n": count + 1})).get("data") == ({"n": count} if count else {})
        await one.http.aclose()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: asyncio.run(visit(number)), range(8)))
    assert len(store) == 8


class Held(MemoryStore):
    """Signals when a write is requested, and waits for `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go, self.deleted = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.go.set()

    async def create(self, *args: Any) -> Any:
        self.asked.set()
        await self.go.wait()
        return await super().create(*args)

    async def delete(self, *args: Any) -> Any:
        self.asked.set()
        await self.go.wait()
        changed = await super().delete(*args)
        self.deleted.set()
        return changed


@pytest.mark.parametrize("deed", ["destroy", "renew"])
async def test_a_session_that_was_to_end_ends_though_the_request_is_cancelled(
    visitor: New, deed: str
) -> None:
    store = Held()
    application, _, _ = gated(store)
    one = visitor(application)
    await one.http.get("/?start=1")
    old = dict(one.http.cookies)
    store.asked.clear()
    store.go.clear()
    request = asyncio.create_task(one.http.get(f"/?do={deed}"))
    await store.asked.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    store.go.set()
    async with asyncio.timeout(5):
        await store.deleted.wait()
    one.http.cookies.clear()
    one.http.cookies.update(old)
    assert (await one.http.get("/")).json() == {}
