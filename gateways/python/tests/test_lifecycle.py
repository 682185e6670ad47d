"""A session's life cycle: created, stored, touched, moved and ended."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import pytest
from conftest import SECRET, Visitor, deeds

from edge_session import Content, MemoryStore, Session, Stored

pytestmark = pytest.mark.anyio

New = Callable[..., Visitor]


def signed(id: str, secret: str = SECRET) -> str:
    """Returns a cookie in cookie-signature's format, computed here."""
    signature = hmac.new(secret.encode(), id.encode(), hashlib.sha256).digest()
    return "s:" + id + "." + base64.b64encode(signature).decode().rstrip("=")


def texts(store: MemoryStore) -> dict[str, Any]:
    """Returns the stored sessions, without the notes about moved ones."""
    documents = {id: json.loads(stored.data) for id, stored in store._sessions.items()}
    return {id: document for id, document in documents.items() if "movedTo" not in document}


class Watched(MemoryStore):
    """Records its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name in ("load", "create", "replace", "touch", "delete"):
            self.asked.append(name)
        return super().__getattribute__(name)

    def then(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked


async def test_a_visitor_without_data_has_no_session(visitor: New) -> None:
    store = Watched()
    one = visitor(deeds(store=store))
    assert (await one())["origin"] == "absent"
    assert one.cookie is None
    assert store.then() == []


async def test_a_session_begins_with_its_first_change(visitor: New) -> None:
    store = Watched()
    one = visitor(deeds(store=store))
    answer = await one(set={"viewCount": 1})
    assert store.then() == ["create"]
    # Node verifies this signature and reads this text.
    assert unquote(one.cookie or "") == signed(answer["id"])
    assert one.cookie == quote(signed(answer["id"]), safe="")
    assert store._sessions[answer["id"]].data == (
        '{"cookie":{"originalMaxAge":null,"expires":null,"secure":false,"httpOnly":true,'
        '"path":"/","sameSite":"lax"},"viewCount":1}'
    )


async def test_a_session_of_nodes_is_known(visitor: New) -> None:
    store = MemoryStore()
    text = '{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"a":[1e2]}'
    await store.create("from-node", Content(text, 2**42))
    one = visitor(deeds(store=store, secret=["a newer secret " * 3, SECRET]))
    one.http.cookies.set("connect.sid", quote(signed("from-node"), safe=""))
    assert await one() == {"data": {"a": [100.0]}, "origin": "loaded", "id": "from-node"}
    assert store._sessions["from-node"].data == text
    await one(set={"b": 1})
    # Unchanged values stay the same, byte for byte.
    assert store._sessions["from-node"].data == text[:-1] + ',"b":1}'


async def test_a_known_visitor_is_touched(visitor: New) -> None:
    store = Watched()
    one = visitor(deeds(store=store, options={"touch_after": 0}))
    await one(set={"a": 1})
    (before,) = store._sessions.values()
    store.then()
    await asyncio.sleep(0.005)
    response = await one.http.post("/")
    assert "set-cookie" not in response.headers
    assert store.then() == ["load", "touch"]
    (after,) = store._sessions.values()
    assert after.data == before.data
    assert (after.expires or 0) > (before.expires or 0)


async def test_the_same_value_again_is_no_change(visitor: New) -> None:
    store = Watched()
    one = visitor(deeds(store=store, options={"touch_after": 0}))
    await one(set={"a": 1, "b": {"c": "é"}})
    store.then()
    await one(set={"a": 1, "b": {"c": "é"}})
    assert store.then() == ["load", "touch"]


@pytest.mark.parametrize("options", [{}, {"touch_after": 60}])
async def test_touch_after_spares_the_store(visitor: New, options: Any) -> None:
    store = Watched()
    one = visitor(deeds(store=store, options=options))
    await one(set={"a": 1})
    store.then()
    await one()
    assert store.then() == ["load"]


async def test_rolling_sends_the_cookie_every_time(visitor: New) -> None:
    one = visitor(deeds(options={"rolling": True, "cookie": {"max_age": 60_000}}))
    first = await one.http.post("/", json={"set": {"a": 1}})
    second = await one.http.post("/")
    for response in (first, second):
        assert "Expires=" in response.headers["set-cookie"]
        assert response.headers["cache-control"] == "no-store"


async def test_the_lifetime_of_one_session_can_be_set(visitor: New) -> None:
    store = MemoryStore()
    one = visitor(deeds(store=store))
    await one(set={"a": 1})
    response = await one.http.post("/", json={"do": ["set_max_age", 3600.5]})
    assert "Expires=" in response.headers["set-cookie"]
    (document,) = texts(store).values()
    assert document["cookie"]["originalMaxAge"] == 3_600_500
    await one(do=["set_max_age", None])
    (document,) = texts(store).values()
    assert document["cookie"]["originalMaxAge"] is None


async def test_regenerate_begins_an_empty_session(visitor: New) -> None:
    store = MemoryStore()
    one = visitor(deeds(store=store))
    old = (await one(set={"a": 1}))["id"]
    await one(do="regenerate", set={"b": 2})
    answer = await one()
    assert answer["data"] == {"b": 2}
    assert answer["id"] != old and list(texts(store)) == [answer["id"]]


async def test_renew_keeps_the_data(visitor: New) -> None:
    store = MemoryStore()
    one = visitor(deeds(store=store))
    old = (await one(set={"a": 1}))["id"]
    await one(do="renew", set={"b": 2})
    answer = await one()
    assert answer["data"] == {"a": 1, "b": 2}
    assert answer["id"] != old and list(texts(store)) == [answer["id"]]


async def test_destroy_clears_the_cookie(visitor: New) -> None:
    store = MemoryStore()
    one = visitor(deeds(store=store))
    await one(set={"a": 1})
    response = await one.http.post("/", json={"do": "destroy"})
    assert "Expires=Thu, 01 Jan 1970" in response.headers["set-cookie"]
    assert one.cookie is None and len(store) == 0
    assert (await one())["data"] == {}


@pytest.mark.parametrize(("unset", "left"), [("keep", 1), ("destroy", 0)])
async def test_unset_does_what_the_option_says(visitor: New, unset: str, left: int) -> None:
    store = MemoryStore()
    one = visitor(deeds(store=store, options={"unset": unset}))
    await one(set={"a": 1})
    await one(do="unset", set={"a": 2})
    assert [document["a"] for document in texts(store).values()] == [1] * left


async def test_keys_come_and_go_as_in_javascript(visitor: New) -> None:
    store = MemoryStore()
    one = visitor(deeds(store=store))
    await one(set={"a": 1, "b": 2, "7": 3})
    await one(remove=["a"], set={"a": 1, "c": 4, "2": 5})
    (document,) = texts(store).values()
    assert list(document) == ["2", "7", "cookie", "b", "a", "c"]
    await one(remove=["b", "2"])
    await one(do="clear", set={"z": 1})
    (document,) = texts(store).values()
    assert list(document) == ["cookie", "z"]


async def test_an_expired_session_is_not_known(visitor: New) -> None:
    store = MemoryStore()
    one = visitor(deeds(store=store, options={"cookie": {"max_age": 30}}))
    answer = await one(set={"a": 1})
    await asyncio.sleep(0.05)
    one.http.cookies.set("connect.sid", quote(signed(answer["id"]), safe=""))
    again = await one()
    assert (again["origin"], again["data"]) == ("unknown", {})
    assert again["id"] != answer["id"]


@pytest.mark.parametrize(
    ("cookie", "origin"),
    [
        ("s%3Aabc.bm90IG91cnM", "forged"),
        (quote(signed("abc", "another secret"), safe=""), "forged"),
        ("s%3Aabc", "forged"),
        ("abc", "malformed"),
        ("%ff%fe", "malformed"),
        ("s%3A" + "x" * 5000, "oversized"),
        (quote(signed("never-stored"), safe=""), "unknown"),
    ],
)
async def test_only_honest_cookies_reach_the_store(visitor: New, cookie: str, origin: str) -> None:
    store = Watched()
    one = visitor(deeds(store=store))
    response = await one.http.post("/", headers={"cookie": f"connect.sid={cookie}"})
    assert response.json()["origin"] == origin
    # The second time is for a note about the move.
    assert store.then() == (["load", "load"] if origin == "unknown" else [])


async def test_cookie_headers_are_all_looked_at(visitor: New) -> None:
    one = visitor(deeds())
    await one(set={"a": 1})
    response = await one.http.post(
        "/", headers=[("cookie", "other=1"), ("cookie", f"x=y; connect.sid={one.cookie}")]
    )
    assert response.json()["origin"] == "loaded"


async def test_an_identifier_that_is_in_use_is_not_taken(visitor: New) -> None:
    class Unlucky(MemoryStore):
        """The identifier that is tried first is taken."""

        async def create(self, id: str, content: Content) -> Any:
            if not len(self):
                await super().create(id, Content('{"cookie":{},"of":"another"}', 2**42))
            return await super().create(id, content)

    store = Unlucky()
    one = visitor(deeds(store=store))
    tried = (await one(set={"a": 1}))["id"]
    answer = await one()
    assert answer["data"] == {"a": 1} and answer["id"] != tried
    assert texts(store)[tried]["of"] == "another"


async def test_a_damaged_document_is_left_alone(visitor: New) -> None:
    store = MemoryStore()
    await store.create("damaged", Content('{"a":1', 2**42))
    one = visitor(deeds(store=store))
    one.http.cookies.set("connect.sid", quote(signed("damaged"), safe=""))
    assert (await one(set={"b": 1}))["origin"] == "damaged"
    assert store._sessions["damaged"].data == '{"a":1'


async def test_other_paths_have_no_session(visitor: New) -> None:
    from conftest import app

    seen: list[Session | None] = []
    one = visitor(app(seen.append, options={"cookie": {"path": "/app"}}))
    for path in ("/", "/app/x", "/%61pp"):  # the raw path counts
        assert (await one.http.get(path)).status_code == 200
    assert [session is None for session in seen] == [True, False, True]


async def test_secure_follows_the_scheme(visitor: New) -> None:
    async def cookie(url: str, headers: Any = None, **options: Any) -> str:
        one = visitor(deeds(options=options), url)
        response = await one.http.post("/", json={"set": {"a": 1}}, headers=headers)
        text: str = response.headers["set-cookie"]
        return text

    proxied = {"x-forwarded-proto": "https, http"}
    assert "Secure" in await cookie("https://test")
    assert "Secure" not in await cookie("http://test")
    assert "Secure" not in await cookie("http://test", proxied)
    assert "Secure" in await cookie("http://test", proxied, proxy=True)
    assert "Secure" not in await cookie("https://test", proxied, proxy=False)


async def test_the_express_preset_stores_everything(visitor: New) -> None:
    store = Watched()
    one = visitor(deeds(store=store, options={"preset": "express"}))
    await one()
    assert store.then() == ["replace"] and one.cookie
    await one()
    assert store.then() == ["load", "replace"]


@pytest.mark.parametrize(
    "stored",
    [Stored(b"{}", None), Stored("{}", 1.5), Stored("{}", None, "now")],  # type: ignore[arg-type]
)
async def test_a_store_that_returns_another_type_is_told(
    visitor: New, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(MemoryStore):
        async def load(self, id: str) -> Stored | None:
            return stored if is_odd else await super().load(id)

    is_odd = False
    one = visitor(deeds(store=Odd()))
    await one(set={"a": 1})
    is_odd = True
    assert (await one.http.post("/")).status_code == 503
    assert "it returned a session whose data is no string, or a time no int" in caplog.text
    is_odd = False
    assert (await one())["data"] == {"a": 1}


async def test_a_session_that_expired_before_1970_has_expired(visitor: New) -> None:
    class Old(MemoryStore):
        async def load(self, id: str) -> Stored | None:
            found = await super().load(id)
            return found and found._replace(expires=-5)

    one = visitor(deeds(store=Old()))
    await one(set={"a": 1})
    assert (await one())["data"] == {}
