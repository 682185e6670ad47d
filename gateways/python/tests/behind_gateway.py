"""Applications whose frameworks use the gateway's sessions as their own, each with a login.

All, including `django_project`, have the same paths: POST /login, GET /account (401, or the user
and the stored values), /put/KEY/VALUE, POST /logout. The response of GET /login must be sent with a
login.
"""

import threading
from typing import Any

import flask
import flask_login
from fastapi import FastAPI, Request, Response

from edge_session.headers.asgi import SessionMiddleware
from edge_session.headers.flask import SessionInterface

meeting = threading.Barrier(2, timeout=20)


def meet(times: str | None) -> None:
    """Handles /put/KEY/VALUE?meet=TIMES: waits for another request, or for a test."""
    for _ in range(int(times or 0)):
        meeting.wait()


def stock_flask() -> Any:
    """Follows Flask's tutorial: it does not deal with identifiers."""
    app = flask.Flask(__name__)
    app.session_interface = SessionInterface()

    @app.get("/login")
    def form() -> str:
        return ""

    @app.post("/login")
    def log_in() -> str:
        flask.session["user"] = flask.request.form["username"]
        flask.flash("Welcome")
        return "ok"

    @app.get("/account")
    def account() -> Any:
        if "user" not in flask.session:
            return "nobody", 401
        return {
            "user": flask.session["user"],
            "said": flask.get_flashed_messages(),
            "kept": {key: value for key, value in flask.session.items() if key[0] == "k"},
        }

    @app.get("/put/<key>/<value>")
    def put(key: str, value: str) -> str:
        meet(flask.request.args.get("meet"))
        flask.session[key] = value
        return "ok"

    @app.post("/logout")
    def log_out() -> str:
        flask.session.clear()
        return "ok"

    return app


class User(flask_login.UserMixin):  # type: ignore[misc]
    def __init__(self, id: str) -> None:
        self.id = id


def flask_with_login() -> Any:
    app = stock_flask()
    flask_login.LoginManager(app).user_loader(User)

    def log_in() -> str:
        flask_login.login_user(User(flask.request.form["username"]))
        flask.flash("Welcome")
        return "ok"

    @flask_login.login_required  # type: ignore[untyped-decorator]
    def account() -> Any:
        return {
            "user": flask_login.current_user.get_id(),
            "said": flask.get_flashed_messages(),
            "kept": {key: value for key, value in flask.session.items() if key[0] == "k"},
        }

    def log_out() -> str:
        flask_login.logout_user()
        return "ok"

    app.view_functions.update(log_in=log_in, account=account, log_out=log_out)
    return app


def fast_api() -> Any:
    app = FastAPI()
    app.add_middleware(SessionMiddleware)

    @app.get("/login")
    def form() -> Response:
        return Response()

    @app.post("/login")
    async def log_in(request: Request) -> str:
        user = (await request.body()).decode().partition("username=")[2].partition("&")[0]
        request.state.session.renew()
        request.session.update(user=user, said=["Welcome"])
        return "ok"

    @app.get("/account")
    def account(request: Request) -> Any:
        session = request.session
        if "user" not in session:
            return Response("nobody", 401)
        kept = {key: value for key, value in session.items() if key[0] == "k"}
        return {"user": session["user"], "said": session.pop("said", []), "kept": kept}

    @app.get("/put/{key}/{value}")
    def put(request: Request, key: str, value: str) -> str:  # in a thread of a pool
        meet(request.query_params.get("meet"))
        request.session[key] = value
        return "ok"

    @app.post("/logout")
    async def log_out(request: Request) -> str:
        request.state.session.destroy()
        return "ok"

    return app
