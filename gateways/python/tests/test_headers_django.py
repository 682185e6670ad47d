"""Django's own session, read from and written to headers."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import django_project
import pytest
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.models import User
from django.core.cache import caches
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.test import AsyncClient, Client, override_settings

from edge_session.headers import HeadersError, Session, SessionError, read
from edge_session.headers.django import SessionStore

pytestmark = pytest.mark.anyio

ID = "an-identifier-of-the-gateways"
ACTION = "Edge-Session-Action"


def told(data: str = "{}", id: str = ID) -> dict[str, str]:
    return {"Edge-Session-Id": id, "Edge-Session": data}


def ours(response: Any) -> dict[str, str]:
    assert response.status_code == 200, response.content
    assert not response.cookies
    return {name: value for name, value in response.items() if name.startswith("Edge-Session")}


def answered(act: Callable[[Any], Any], data: str = "{}", id: str = ID) -> dict[str, str]:
    django_project.acts["act"] = act
    return ours(Client().get("/act", headers=told(data, id)))


def shown(act: Callable[[Any], Any], data: str = "{}") -> str:
    django_project.acts["act"] = act
    text: str = Client().get("/act", headers=told(data)).content.decode()
    return text


def of_ada() -> str:
    """Returns the data of a session in which she is logged in."""
    headers = told(json.dumps({"kept": {"apples": 1}}))
    client = Client()
    token = client.get("/login", headers=headers)
    headers["Edge-Session"] = token["Edge-Session"]
    form = {"username": django_project.USER, "password": django_project.PASSWORD}
    form["csrfmiddlewaretoken"] = token.content.decode()
    response = client.post("/login", form, headers=headers)
    assert ours(response)[ACTION] == "regenerate"
    data: str = response["Edge-Session"]
    return data


def test_what_is_put_into_it_is_answered() -> None:
    cart = '{"cart":{"apples":1}}'
    for act, expected in (
        (lambda it: None, None),
        (lambda it: it.session.get("cart"), None),
        (lambda it: it.session.update({"user": "Zoë"}), cart[:-1] + ',"user":"Zo\\u00eb"}'),
        # Also inside values, where Django's own sessions must be marked as modified.
        (lambda it: it.session["cart"].update(apples=2), '{"cart":{"apples":2}}'),
        (lambda it: it.session.pop("cart"), "{}"),
        (lambda it: it.session.set_test_cookie(), cart[:-1] + ',"testcookie":"worked"}'),
    ):
        assert answered(act, cart) == ({} if expected is None else {"Edge-Session": expected})


def test_it_ends_and_goes_on_under_a_new_identifier() -> None:
    data = '{"a":1}'
    new = {ACTION: "regenerate", "Edge-Session": data}
    assert answered(lambda it: it.session.cycle_key(), data) == new
    assert answered(lambda it: it.session.create(), data) == new
    assert answered(lambda it: it.session.flush(), data) == {ACTION: "destroy"}
    assert answered(lambda it: it.session.clear(), data) == {ACTION: "destroy"}
    assert answered(lambda it: it.session.delete(), data) == {ACTION: "destroy"}
    assert answered(lambda it: it.session.delete(it.session.session_key), data) == {
        ACTION: "destroy"
    }
    assert answered(lambda it: it.session.flush()) == {}
    assert answered(lambda it: it.session.flush() or it.session.update({"b": 2}), data) == {
        ACTION: "regenerate",
        "Edge-Session": '{"b":2}',
    }


def test_a_page_depends_on_the_session_that_it_was_made_of() -> None:
    # Without the CSRF middleware, which reads every session.
    with override_settings(MIDDLEWARE=settings.MIDDLEWARE[:1]):
        for act, vary in (
            (lambda it: None, None),
            (lambda it: it.session["a"], "Cookie, Edge-Session, Edge-Session-Id"),
        ):
            django_project.acts["act"] = act
            assert Client().get("/act", headers=told('{"a":1}')).get("Vary") == vary


@pytest.mark.parametrize("has_cookies", [True, False])
def test_a_cache_of_the_whole_site_gives_nobody_anothers_session(has_cookies: bool) -> None:
    def act(it: Any) -> str:
        before = it.session.get("user", "nobody")
        it.session.setdefault("token", f"of {it.headers['Visitor']}")
        return f"{before} of {it.headers['Visitor']}"

    middleware = settings.MIDDLEWARE
    in_front, behind = "UpdateCacheMiddleware", "FetchFromCacheMiddleware"
    cached = [
        f"django.middleware.cache.{in_front}",
        *middleware,
        f"django.middleware.cache.{behind}",
    ]
    django_project.acts["act"] = act

    def visit(visitor: str, data: str) -> Any:
        headers = {**told(data, f"the-identifier-of-{visitor}"), "Visitor": visitor}
        if has_cookies:
            headers["Cookie"] = f"connect.sid={visitor}"
        return Client().get("/act", headers=headers)

    with override_settings(MIDDLEWARE=cached):
        caches["default"].clear()
        first, second = visit("ada", "{}"), visit("eve", "{}")
        assert first["Edge-Session"] == '{"token":"of ada"}'
        assert second["Edge-Session"] == '{"token":"of eve"}'
        for visitor in ("ada", "eve"):
            data = json.dumps({"user": visitor, "token": "x"})
            for _ in range(2):
                response = visit(visitor, data)
                assert response.content.decode() == f"{visitor} of {visitor}"
                assert not response.has_header("Edge-Session")
        # A cached page that may be served changes nothing.
        again = visit("ada", "{}")
        assert again.content == first.content and not again.has_header("Edge-Session")


def test_a_key_is_known_where_a_session_is_kept() -> None:
    def create(it: Any) -> str:
        if not it.session.session_key:
            it.session.create()
        return str(it.session.session_key)

    assert shown(lambda it: it.session.session_key) == "None"
    assert shown(lambda it: it.session.session_key, '{"a":1}') == ID
    # The gateway does not keep new sessions that are empty.
    assert shown(create) == ID
    assert answered(create) == {"Edge-Session": '{"_session_saved":true}'}
    assert shown(create, '{"_session_saved":true}') == ID
    assert shown(lambda it: it.session.cycle_key() or it.session.session_key, '{"a":1}') == "None"
    assert shown(lambda it: it.session.flush() or create(it), '{"a":1}') == "None"


def test_who_logs_in_keeps_the_data_and_gets_a_new_identifier() -> None:
    data = of_ada()
    assert json.loads(data)["kept"] == {"apples": 1}
    client = Client()
    response = client.get("/account", headers=told(data))
    assert response.json() == {
        "user": "ada",
        "said": ["Welcome"],
        "kept": {"kept": {"apples": 1}},
    }
    # The message was shown.
    data = ours(response)["Edge-Session"]
    assert client.get("/account", headers=told(data)).json()["said"] == []
    assert ours(client.get("/account", headers=told(data))) == {}
    assert ours(client.get("/logout", headers=told(data))) == {ACTION: "destroy"}
    assert client.get("/account", headers=told()).status_code == 401


async def test_asynchronous_views_have_it_too() -> None:
    response = await AsyncClient().get("/login-async", headers=told('{"a":1}'))
    answer = ours(response)
    assert answer[ACTION] == "regenerate"
    assert json.loads(answer["Edge-Session"]).items() >= {"a": 1, "_auth_user_id": "1"}.items()


def test_a_new_password_renews_the_session() -> None:
    def change(it: Any) -> None:
        update_session_auth_hash(it, User.objects.get(username="ada"))

    assert answered(change, of_ada())[ACTION] == "regenerate"


def test_messages_are_kept_in_it() -> None:
    data = answered(lambda it: messages.info(it, "Zoë"))["Edge-Session"]
    assert data.isascii()
    assert shown(lambda it: [str(one) for one in messages.get_messages(it)], data) == "['Zoë']"


def test_the_admin_runs() -> None:
    assert [it for it in run_checks() if it.is_serious()] == []
    response = Client().get("/admin/", headers=told(of_ada()))
    assert response.status_code == 200 and "Site administration" in response.content.decode()


async def test_how_long_it_lives_is_not_the_applications_to_say() -> None:
    for act in (
        lambda it: it.session.set_expiry(0),
        lambda it: it.session.set_expiry(timedelta(days=30)),
        lambda it: it.session.get_expiry_age(),
        lambda it: it.session.get_expiry_date(),
        lambda it: it.session.get_expire_at_browser_close(),
    ):
        with pytest.raises(SessionError, match="the gateway sets the lifetime"):
            answered(act)
    assert answered(lambda it: it.session.set_expiry(None)) == {}
    store = SessionStore(Session(read([ID], ["{}"])))
    for call in (
        store.aset_expiry(0),
        store.aget_expiry_age(),
        store.aget_expiry_date(),
        store.aget_expire_at_browser_close(),
    ):
        with pytest.raises(SessionError, match="the gateway sets the lifetime"):
            await call
    await store.aset_expiry(None)


async def test_asynchronous_names_do_the_same() -> None:
    async def after(act: Callable[[SessionStore], Any], data: str = '{"a":1}') -> dict[str, str]:
        session = Session(read([ID], [data]))
        await act(SessionStore(session))
        return {name: value for name, value in session._answer() if name != "Vary"}

    new = {ACTION: "regenerate", "Edge-Session": '{"a":1}'}
    assert await after(lambda it: it.aset("b", 2)) == {"Edge-Session": '{"a":1,"b":2}'}
    assert await after(lambda it: it.acycle_key()) == new
    assert await after(lambda it: it.acreate()) == new
    assert await after(lambda it: it.aflush()) == {ACTION: "destroy"}
    assert await after(lambda it: it.adelete()) == {ACTION: "destroy"}
    assert await after(lambda it: it.asave()) == {}
    assert await after(lambda it: it.asave(), "{}") == {"Edge-Session": '{"_session_saved":true}'}


def test_other_sessions_are_out_of_reach() -> None:
    for act in (
        lambda it: it.session.delete("the-identifier-of-another"),
        lambda it: it.session.exists("the-identifier-of-another"),
    ):
        with pytest.raises(SessionError):
            answered(act)


def test_requests_that_did_not_come_through_the_gateway_are_refused() -> None:
    with pytest.raises(HeadersError, match="did not come through the gateway"):
        Client().get("/account")
    client = Client(raise_request_exception=False)
    for headers in ({}, told("{},{}"), told("[]"), told(id=f"{ID},{ID}")):
        assert client.get("/account", headers=headers).status_code == 500


def test_a_value_that_cannot_be_kept_fails_the_request() -> None:
    def act(it: Any) -> None:
        it.session["card"] = {"hunter2"}

    with pytest.raises(SessionError, match="'card'") as raised:
        answered(act)
    assert "hunter2" not in str(raised.value)
    response = Client(raise_request_exception=False).get("/act", headers=told())
    assert response.status_code == 500 and not response.has_header("Edge-Session")
    with pytest.raises(SessionError, match=r"outside cookie\.path"):
        answered(lambda it: it.session.update({"a": 1}), id="")


def test_a_middleware_outside_that_answers_304_is_refused() -> None:
    conditional = "django.middleware.http.ConditionalGetMiddleware"
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, conditional]):
        assert Client().get("/act", headers=told()).status_code == 200
    with (
        override_settings(MIDDLEWARE=[conditional, *settings.MIDDLEWARE]),
        pytest.raises(ImproperlyConfigured, match="including logouts"),
    ):
        Client().get("/act", headers=told())
