"""Caches do not serve one visitor's response to another."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Visitor, asgi
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from edge_session import Session
from edge_session._caches import cache_control, keep_private, vary_by_cookie

pytestmark = pytest.mark.anyio

#: The rules of all gateways.
_CONFORMANCE = Path(__file__).parents[3] / "tests/conformance"

New = Callable[..., Visitor]


@pytest.mark.parametrize(
    ("said", "kept"),
    json.loads((_CONFORMANCE / "cache-control.json").read_text()),
)
def test_no_shared_cache_keeps_a_response_with_a_cookie(said: str, kept: str) -> None:
    assert cache_control(said.encode()) == kept.encode()
    assert cache_control(kept.encode()) == kept.encode()


def test_what_the_application_says_to_caches_is_one_list() -> None:
    for said, kept in (
        ([], b"no-store"),
        ([b"public", b"max-age=60"], b"private, max-age=60"),
        ([b"max-age=60", b"private"], b"max-age=60, private"),
        ([b""], b"private"),
    ):
        headers = keep_private([(b"a", b"b"), *((b"Cache-Control", value) for value in said)])
        assert headers == [(b"a", b"b"), (b"cache-control", kept)]


def test_a_response_varies_by_cookies_once() -> None:
    for said, is_added in (
        ([], True),
        ([b"Accept"], True),
        ([b"Accept, COOKIE"], False),
        ([b"Accept", b"cookie"], False),
        ([b"Accept , *"], False),
        ([b"X-Cookie, Cookie-X"], True),
    ):
        old = [(b"Vary", value) for value in said]
        headers = vary_by_cookie(old)
        assert headers == old + [(b"vary", b"Cookie")] * is_added
        assert vary_by_cookie(headers) == headers


def answering(act: Callable[[Request], Any], **settings: Any) -> Any:
    async def endpoint(request: Request) -> Response:
        act(request)
        return PlainTextResponse("ok", headers={"cache-control": "public, max-age=60"})

    return asgi(endpoint, **settings)


async def headers_of(one: Visitor) -> tuple[str | None, str | None]:
    headers = (await one.http.get("/")).headers
    return headers.get("cache-control"), headers.get("vary")


async def test_a_response_that_sets_the_cookie_is_private(visitor: New) -> None:
    def act(request: Request) -> None:
        request.state.session["a"] = 1

    one = visitor(answering(act))
    assert await headers_of(one) == ("private, max-age=60", "Cookie")
    # The cookie is not set again, so the application's header is kept.
    assert await headers_of(one) == ("public, max-age=60", "Cookie")


@pytest.mark.parametrize(
    "look",
    [
        lambda request: request.state.session.get("a"),
        lambda request: bool(request.state.session),
        lambda request: request.session,
        lambda request: request.state.session.origin,
        lambda request: request.state.session.expires,
        lambda request: request.state.session.id,
    ],
)
async def test_a_response_depends_on_a_session_that_was_looked_at(
    visitor: New, look: Callable[[Request], Any]
) -> None:
    assert await headers_of(visitor(answering(look))) == ("public, max-age=60", "Cookie")


async def test_a_response_does_not_depend_on_a_session_that_was_left_alone(visitor: New) -> None:
    def act(request: Request) -> None:
        assert isinstance(request.state.session, Session)

    assert await headers_of(visitor(answering(act))) == ("public, max-age=60", None)
    looking = answering(lambda request: None, options={"cookie": {"path": "/elsewhere"}})
    assert await headers_of(visitor(looking)) == ("public, max-age=60", None)


async def test_caches_hear_from_the_express_preset_what_they_hear_from_express(
    visitor: New,
) -> None:
    def act(request: Request) -> None:
        request.state.session["a"] = 1

    one = visitor(answering(act, options={"preset": "express"}))
    assert await headers_of(one) == ("public, max-age=60", None)
    assert one.cookie
