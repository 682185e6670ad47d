"""The component: where it is loaded from, what it can access, and how its failures are handled."""

import hashlib
import math
import os
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import SECRET, asgi, deeds

from edge_session import (
    ComponentError,
    MemoryStore,
    OptionsError,
    SessionMiddleware,
    component_path,
)
from edge_session._contract import Failure, Request, State, Visit
from edge_session.component import SessionFailed

PROJECT = Path(__file__).resolve().parents[1]
MADE = PROJECT.parents[1] / "host" / "session.wasm"


def digest(wasm: bytes) -> str:
    return hashlib.sha256(wasm).hexdigest()


def test_the_component_is_the_one_that_was_made() -> None:
    assert digest(component_path().read_bytes()) == digest(MADE.read_bytes())


def test_a_wheel_has_the_same_component(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    environment = {**os.environ, "EDGE_SESSION_COMPONENT": str(MADE)}
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True, env=environment)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        assert "edge_session/py.typed" in files.namelist()
        assert digest(files.read("edge_session/session.wasm")) == digest(MADE.read_bytes())


def test_the_component_may_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_SESSION_COMPONENT", str(tmp_path / "none.wasm"))
    assert component_path() == tmp_path / "none.wasm"
    with pytest.raises(ComponentError, match=r"none\.wasm: No such file.*`make component`"):
        asgi(None)
    asgi(None, component=MADE)


@pytest.mark.parametrize(
    ("wasm", "why"),
    [
        # What another file contains, perhaps a secret, is not quoted.
        (b"no wasm", r"other\.wasm is not a WebAssembly component$"),
        (b"(component)", "it imports nothing"),
        (
            b'(component (import "wasi:filesystem/types@0.2.0" (instance)))',
            "it imports wasi:filesystem/types@0.2.0",
        ),
        (
            b'(component (import "wasi:clocks/wall-clock@0.2.0" (instance))'
            b'(import "wasi:random/random@0.2.0" (instance)))',
            r"other\.wasm is a .* it exports no edge:session/engine@0\.2\.0",
        ),
        (
            b'(component (instance $old) (export "edge:session/engine@0.1.0" (instance $old)))',
            r"other\.wasm is a component of edge:session/engine@0\.1\.0, and this package needs "
            r"edge:session/engine@0\.2\.0: use the component and the package of one release",
        ),
    ],
)
def test_another_component_is_refused(wasm: bytes, why: str, tmp_path: Path) -> None:
    from wasmtime import wat2wasm

    file = tmp_path / "other.wasm"
    file.write_bytes(wat2wasm(wasm) if wasm.startswith(b"(") else wasm)
    with pytest.raises(ComponentError, match=why):
        asgi(None, component=file)


@pytest.mark.anyio
async def test_a_trap_fails_its_request_and_no_other(visitor: Any, caplog: Any) -> None:
    app = deeds()
    engine = app._sessions._engine
    one = visitor(app)
    await one(set={"a": 1})
    plenty = engine._fuel
    engine._fuel = 100  # too few instructions: a real trap
    response = await one.http.post("/")
    assert response.status_code == 503
    assert response.text == "Sessions are unavailable. Please try again.\n"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert "the component failed: wasm trap: all fuel consumed" in caplog.text
    engine._fuel = plenty
    assert (await one())["data"] == {"a": 1}


@pytest.mark.anyio
async def test_a_trap_at_the_end_replaces_the_answer(visitor: Any) -> None:
    app = deeds()
    engine = app._sessions._engine
    one = visitor(app)
    await one(set={"a": 1})
    finish, plenty = engine.finish, engine._fuel

    def trapping(*args: Any) -> Any:
        engine._fuel = 100
        return finish(*args)

    engine.finish = trapping
    response = await one.http.post("/", json={"set": {"a": 2}})
    assert (response.status_code, response.text[:8]) == (503, "Sessions")
    engine.finish, engine._fuel = finish, plenty
    assert (await one())["data"] == {"a": 1}


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["begin", "loaded", "finish"])
async def test_a_failures_status_and_message_reach_the_visitor_and_its_reason_the_log(
    visitor: Any, caplog: Any, name: str
) -> None:
    app = deeds()
    one = visitor(app)
    await one(set={"a": 1})

    def fail(*args: Any) -> Any:
        raise SessionFailed(Failure("contention", 418, "A sentence, só.", "a reason"))

    setattr(app._sessions._engine, name, fail)
    response = await one.http.post("/", json={"set": {"a": 2}})
    assert (response.status_code, response.text) == (418, "A sentence, só.\n")
    assert "set-cookie" not in response.headers
    assert "contention: a reason" in caplog.text
    assert "reason" not in response.text


def test_a_failure_leaves_the_instance_as_it_is() -> None:
    engine = asgi(None)._sessions._engine
    functions = engine._functions
    visit = Visit("an-id", State(0, None))  # no state of this engine
    with pytest.raises(SessionFailed) as failed:
        engine.loaded(visit, ("err", "out of order"))
    assert failed.value.failure.kind == "misuse"
    engine.begin(Request(b"", "/", False, False, None))
    assert engine._functions is functions


def problems(**settings: Any) -> dict[str, str]:
    with pytest.raises(OptionsError) as raised:
        SessionMiddleware(None, **{"secret": SECRET, "store": MemoryStore(), **settings})  # type: ignore[arg-type]
    assert all(problem.message in str(raised.value) for problem in raised.value.problems)
    return dict(raised.value.problems)


def test_all_problems_are_reported_together() -> None:
    found = problems(
        secret="short",
        options={
            "name": "no name",
            "rolling": "yes",
            "unset": "drop",
            "resav": True,
            "cookie": {"path": "x", "max_age": -1, "secure": "maybe", "same-site": "lx"},
            "store": {"ttl": 0, "url": "memory:"},
        },
    )
    assert set(found) == {
        "secret",
        "name",
        "rolling",
        "unset",
        "resav",
        "cookie.path",
        "cookie.max_age",
        "cookie.secure",
        "cookie.same-site",
        "store.ttl",
        "store.url",
    }
    assert found["unset"] == 'is "drop", not one of "keep", "destroy"'
    assert found["cookie.secure"] == 'is "maybe", not true, false or "auto"'
    assert "short" not in found["secret"].replace("shorter", "")


def test_a_secret_is_never_shown() -> None:
    found = problems(secret=12345, options={"secret": "hidden", "name": ["hidden"]})
    assert set(found) == {"secret", "name"}
    assert not any("12345" in text or "hidden" in text for text in found.values())
    assert problems(secret=None)["secret"].startswith("is missing")


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({"resav": True}, "resav", "is not an option: did you mean resave?"),
        ({"touchAftr": 1}, "touchAftr", "is not an option: did you mean store.touch_after?"),
        (
            {"cookie": {"max_ages": 1}},
            "cookie.max_ages",
            "is not an option: did you mean cookie.max_age?",
        ),
        ({"frobnicate": None}, "frobnicate", "is not an option"),
        (
            {"cookie": "lax"},
            "cookie",
            "is not an option, but a group of options, such as cookie.path",
        ),
    ],
)
def test_an_unknown_option_is_refused_by_its_name_with_the_nearest_known_one(
    options: Any, name: str, message: str
) -> None:
    assert problems(options=options) == {name: message}


@pytest.mark.parametrize("value", [{1}, b"bytes", object(), [math.inf], 2j])
def test_a_value_that_json_does_not_have_is_refused_with_all_other_problems(value: Any) -> None:
    found = problems(options={"name": value, "cookie": {"path": "x"}})
    assert set(found) == {"name", "cookie.path"}
    assert found["name"] == f"is a value without a JSON form: a {type(value).__name__}"


@pytest.mark.parametrize(
    "options",
    [
        {"cookie": {"max_age": 60_000}, "store": {"touch_after": 5}, "save_uninitialized": True},
        {"cookie": {"maxAge": 60_000.0}, "touchAfter": 5, "saveUninitialized": True},
        {"cookie.max-age": 60_000, "TOUCH_AFTER": 5, "save_uninitialized": True, "store": None},
    ],
)
def test_options_may_have_javascripts_names(options: Any) -> None:
    in_force = asgi(None, options=options)._sessions._engine.options
    assert in_force["cookie.max_age"] == 60_000
    assert in_force["store.touch_after"] == 5
    assert in_force["save_uninitialized"] is True


def test_a_date_may_be_a_datetime() -> None:
    date = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    for value in (date, "2030-01-02T03:04:05Z", date.timestamp() * 1000):
        engine = asgi(None, options={"cookie": {"expires": value}})._sessions._engine
        assert engine.options["cookie.expires"] == date.timestamp() * 1000
    assert set(problems(options={"cookie": {"expires": date.replace(tzinfo=None)}})) == {
        "cookie.expires"
    }


@pytest.mark.parametrize(
    "secret", [12345, [12345], [SECRET, None], {SECRET}, {SECRET: 1}, "\ud800" * 32]
)
def test_a_secret_that_is_none_is_refused(secret: Any) -> None:
    assert problems(secret=secret) == {"secret": "is not a string, bytes or a list of these"}


@pytest.mark.parametrize(
    "options", [{"preset": "fast"}, {"cookie": 1}, {"max_session_bytes": 2**32}]
)
def test_what_is_not_of_its_type_is_refused(options: Any) -> None:
    assert set(problems(options=options)) == set(options)


@pytest.mark.parametrize("max_age", ["1h", True, -1, math.nan, 8.65e15, 10**400])
def test_a_lifetime_that_is_none_is_refused(max_age: Any) -> None:
    assert set(problems(options={"cookie": {"max_age": max_age}})) == {"cookie.max_age"}


def test_options_that_belong_together_are_checked_by_the_component() -> None:
    found = problems(options={"cookie": {"same_site": "none", "secure": False, "priority": "low"}})
    assert set(found) == {"cookie.same_site"}


def test_every_option_can_be_set() -> None:
    options = {
        "preset": "express",
        "name": "sid",
        "allow_weak_secret": True,
        "resave": False,
        "save_uninitialized": False,
        "rolling": True,
        "unset": "destroy",
        "proxy": True,
        "conflicts": "merge",
        "on_store_error": "anonymous",
        "max_session_bytes": 1000,
        "ttl": 1000,
        "touch_after": 10,
        "store": {"ttl": 100, "touch_after": 5},
        "cookie": {
            "path": "/a",
            "domain": "example.com",
            "expires": "2030-01-02T03:04:05Z",
            "max_age": None,
            "http_only": False,
            "secure": True,
            "same_site": "none",
            "partitioned": True,
            "priority": "high",
        },
    }
    SessionMiddleware(None, [b"new", "old"], store=MemoryStore(), options=options)  # type: ignore[arg-type]


def test_options_that_cannot_be_used_are_told_when_the_server_starts(tmp_path: Path) -> None:
    (tmp_path / "weak.py").write_text(
        "from edge_session import MemoryStore, SessionMiddleware\n"
        "from starlette.applications import Starlette\n"
        "app = Starlette()\n"
        "app.add_middleware(SessionMiddleware, secret='hunter2', store=MemoryStore())\n"
    )
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--port", "0", "weak:app"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        # By default, it ignores failures of the application's first call.
        lines = []
        for line in server.stderr:
            lines.append(line)
            if "Uvicorn running" in line:
                break
    finally:
        server.terminate()
        server.wait()
    said = "".join(lines)
    assert "edge-session cannot serve: " in said and "fewer than 32" in said, said
    assert "hunter2" not in said
