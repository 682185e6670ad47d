"""Flask's own session, read from and written to headers."""

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import flask
import flask_login
import pytest
from flask.json.provider import DefaultJSONProvider
from markupsafe import Markup

from edge_session.headers import HeadersError, SessionError
from edge_session.headers.flask import SessionInterface

ID = "an-identifier-of-the-gateways"


def app(act: Callable[[Any], Any]) -> flask.Flask:
    """Returns an application that acts on the session; it has no SECRET_KEY."""
    application = flask.Flask(__name__)
    application.session_interface = SessionInterface()

    @application.get("/")
    def page() -> Any:
        answer = act(flask.session)
        return answer if isinstance(answer, str | flask.Response) else "ok"

    return application


def visit(application: flask.Flask, data: str = "{}", id: str = ID) -> Any:
    headers = {"Edge-Session-Id": id, "Edge-Session": data}
    response = application.test_client().get("/", headers=headers)
    assert "Set-Cookie" not in response.headers
    return response


def answered(act: Callable[[Any], Any], data: str = "{}") -> dict[str, str]:
    response = visit(app(act), data)
    assert response.status_code == 200
    return {name: value for name, value in response.headers if name.startswith("Edge-Session")}


def test_what_is_put_into_it_is_answered() -> None:
    assert answered(lambda one: None, '{"user":"ada"}') == {}
    assert answered(lambda one: one["user"] == "ada", '{"user":"ada"}') == {}
    assert answered(lambda one: one.update(user="Zoë")) == {"Edge-Session": '{"user":"Zo\\u00eb"}'}
    # Also inside values, where Flask's own sessions must be marked as modified.
    cart = '{"cart":{"apples":1}}'
    changed = {"Edge-Session": '{"cart":{"apples":2}}'}
    vary = visit(app(lambda one: one["cart"]), cart).headers["Vary"]
    assert vary == "Cookie, Edge-Session, Edge-Session-Id"
    assert "Vary" not in visit(app(lambda one: None), cart).headers
    assert answered(lambda one: one["cart"].update(apples=2), cart) == changed
    assert answered(lambda one: one.pop("cart"), cart) == {"Edge-Session": "{}"}
    assert answered(lambda one: setattr(one, "modified", True), cart) == {}


def test_a_response_that_is_made_once_carries_nobodys_session_to_others() -> None:
    once = flask.Response("the same for all")

    def log_in(session: Any) -> flask.Response:
        session["user"] = "ada"
        return once

    assert visit(app(log_in)).headers["Edge-Session"] == '{"user":"ada"}'
    assert "Edge-Session" not in visit(app(lambda session: once), '{"user":"bob"}').headers
    again = visit(app(log_in), '{"user":"bob"}').headers
    assert again.getlist("Edge-Session") == ['{"user":"ada"}']


def test_clear_ends_the_session_and_what_comes_then_is_another_one() -> None:
    def tutorial(one: Any) -> None:
        one.clear()
        one["user_id"] = 7

    action = "Edge-Session-Action"
    assert answered(lambda one: one.clear(), '{"user":"ada"}') == {action: "destroy"}
    assert answered(tutorial) == {action: "regenerate", "Edge-Session": '{"user_id":7}'}
    assert answered(lambda one: one.destroy(), '{"user":"ada"}') == {action: "destroy"}
    assert answered(lambda one: one.renew(), '{"user":"ada"}') == {
        action: "regenerate",
        "Edge-Session": '{"user":"ada"}',
    }


def test_what_flask_stores_beyond_json_comes_back() -> None:
    values = {
        "tuple": (1, ("x",)),
        "bytes": b"\x00\xff",
        "markup": Markup("<b>Zoë</b>"),
        "uuid": uuid.UUID(int=7),
        "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "like a tag": {" t": [1]},
        " t": "a key of its own",
        "deep": [{"in": (1,)}],
    }
    told = answered(lambda one: one.update(values))["Edge-Session"]
    assert told.isascii() and json.loads(told)["tuple"] == {" t": [1, {" t": ["x"]}]}

    def back(one: Any) -> None:
        assert dict(one) == values
        assert type(one["tuple"]) is tuple and type(one["markup"]) is Markup

    assert answered(back, told) == {}
    alone = answered(lambda one: one.update({" t": [1]}))["Edge-Session"]
    assert answered(lambda one: one == {" t": [1]} or flask.abort(400), alone) == {}


def test_messages_are_flashed() -> None:
    told = answered(lambda one: flask.flash("Zoë", "error"))["Edge-Session"]

    def show(_: Any) -> Any:
        return flask.jsonify(flask.get_flashed_messages(with_categories=True))

    response = visit(app(show), told)
    assert response.json == [["error", "Zoë"]]
    assert response.headers["Edge-Session"] == "{}"


def test_an_applications_own_json_is_ascii_too() -> None:
    class Provider(DefaultJSONProvider):
        ensure_ascii = False

    application = app(lambda one: one.update(user="Zoë", at=datetime(2026, 1, 2, tzinfo=UTC)))
    application.json = Provider(application)
    assert visit(application).headers["Edge-Session"].isascii()


def test_a_lifetime_is_kept_and_has_no_effect() -> None:
    assert answered(lambda one: setattr(one, "permanent", True)) == {
        "Edge-Session": '{"_permanent":true}'
    }
    assert answered(lambda one: one.permanent or flask.abort(400), '{"_permanent":true}') == {}


def test_requests_that_did_not_come_through_the_gateway_are_refused() -> None:
    application = app(lambda one: pytest.fail("the application is not asked"))
    assert application.test_client().get("/").status_code == 500
    for data, id in (("{},{}", ID), ("[]", ID), ("{}", f"{ID},{ID}")):
        assert visit(application, data, id).status_code == 500
    application.testing = True  # raises errors instead of logging them
    deep = '{"a":' + "[" * 2000 + "]" * 2000 + "}"
    with pytest.raises(HeadersError, match="nested too deeply"):
        visit(application, deep)
    with pytest.raises(HeadersError, match="did not come through the gateway"):
        application.test_client().get("/")


def test_a_value_that_cannot_be_kept_fails_the_request(caplog: Any) -> None:
    application = app(lambda one: one.update(card={"hunter2"}))
    response = visit(application)
    assert response.status_code == 500 and "Edge-Session" not in response.headers
    assert "the value of the session's key 'card' cannot be stored" in caplog.text
    assert "hunter2" not in caplog.text
    application.testing = True
    with pytest.raises(SessionError, match="'card'"):
        visit(application)
    with pytest.raises(SessionError, match=r"outside cookie\.path"):
        visit(application, id="")


def test_a_change_in_a_streamed_body_is_an_error() -> None:
    late: list[str] = []

    def stream(one: Any) -> flask.Response:
        @flask.stream_with_context
        def body() -> Any:
            try:
                one["late"] = 1
            except SessionError as error:
                late.append(str(error))
            yield b"x"

        return flask.Response(body())

    application = app(stream)
    visit(application).get_data()
    assert late == ["the response's headers were sent: the session can no longer be changed"]


def test_flask_login_keeps_its_user_there(caplog: Any) -> None:
    application = app(lambda one: flask_login.current_user.get_id() or "nobody")
    manager = flask_login.LoginManager(application)

    class User(flask_login.UserMixin):  # type: ignore[misc]
        id = "ada"

    manager.user_loader(lambda id: User() if id == "ada" else None)
    application.get("/login", endpoint="in")(lambda: str(flask_login.login_user(User())))
    application.get("/logout", endpoint="out")(lambda: str(flask_login.logout_user()))
    client = application.test_client()
    assert client.get("/").status_code == 500
    assert "did not come through the gateway" in caplog.text
    headers = {"Edge-Session-Id": ID, "Edge-Session": "{}"}
    assert client.get("/", headers=headers).text == "nobody"
    headers["Edge-Session"] = client.get("/login", headers=headers).headers["Edge-Session"]
    assert json.loads(headers["Edge-Session"])["_user_id"] == "ada"
    response = client.get("/", headers=headers)
    assert response.text == "ada" and "Edge-Session" not in response.headers
    headers["Edge-Session"] = client.get("/logout", headers=headers).headers["Edge-Session"]
    assert client.get("/", headers=headers).text == "nobody"
