"""`session.wasm`: loading, compiling, and its running instances."""

import json
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from wasmtime import Config, Engine, Store, WasiConfig, WasmtimeError
from wasmtime.component import Component as Compiled
from wasmtime.component import Linker

from ._contract import (
    Beginning,
    Change,
    Failure,
    Loaded,
    Obstacle,
    Plan,
    Problem,
    Request,
    Setting,
    Stored,
    Visit,
)
from ._forks import Lock
from ._values import Failed, Function, UnknownType

_ENGINE = "edge:session/engine@"
_VERSION = "0.2.0"

_FUNCTIONS = ("configure", "begin", "loaded", "finish", "resume")

_RANDOM = "wasi:random/random@0.2.0"

#: The only imports that the component may have: the clock and random numbers.
_IMPORTS = {"wasi:clocks/wall-clock@0.2.0", _RANDOM}

#: The maximum memory of an instance. A session is held in it several times.
_MAX_MEMORY = 128 << 20

#: A call takes tens of thousands of instructions, or tens of millions with a session of 1 MiB. A
#: call that takes this many, about a second, is aborted.
_FUEL_PER_CALL = 20_000_000_000


class ComponentError(Exception):
    """The component cannot be used."""


class CallFailed(Exception):
    """The component trapped, or took too long."""


def component_path() -> Path:
    """Returns where the component is loaded from.

    This is `EDGE_SESSION_COMPONENT`, or else the copy in the installed package, or else the one in
    the checkout that contains this package.
    """
    if path := os.environ.get("EDGE_SESSION_COMPONENT"):
        return Path(path)
    here = Path(__file__).resolve()
    installed = here.with_name("session.wasm")
    if installed.exists() or len(here.parents) < 5:
        return installed
    return here.parents[4] / "host" / "session.wasm"


class Component:
    """The session logic, compiled for this machine."""

    def __init__(self, wasm: bytes) -> None:
        config = Config()
        config.consume_fuel = True
        # A forked process lacks the threads that compile and that handle traps.
        config.parallel_compilation = False
        if sys.platform == "darwin":
            config.macos_use_mach_ports = False
        self._engine = Engine(config)
        if not wasm.startswith(b"\0asm"):
            # wasmtime would read it as the text format, and quote it in its error: it may be
            # a secret.
            raise ComponentError("not a WebAssembly component")
        try:
            self._compiled = Compiled(self._engine, wasm)
        except WasmtimeError as error:
            raise ComponentError(f"not a WebAssembly component: {error}") from error
        type_ = self._compiled.type
        _check(set(type_.imports(self._engine)), list(type_.exports(self._engine)))
        self._linker = _linker(self._engine)

    @staticmethod
    @lru_cache(maxsize=4)
    def load(path: Path) -> "Component":
        """Loads the component from a file. It is compiled once per process, in about half a
        second."""
        try:
            wasm = path.read_bytes()
        except OSError as error:
            raise ComponentError(
                f"cannot read the component {path}: {error.strerror}. "
                "It is built by `make component`"
            ) from error
        try:
            return Component(wasm)
        except ComponentError as error:
            raise ComponentError(f"{path} is {error}") from error

    def instantiate(self) -> tuple[Store, dict[str, Function]]:
        """Creates an instance; returns it with its functions."""
        store = Store(self._engine)
        store.set_fuel(_FUEL_PER_CALL)
        store.set_limits(memory_size=_MAX_MEMORY)
        # No environment, files, streams or sockets.
        store.set_wasi(WasiConfig())
        instance = self._linker.instantiate(store, self._compiled)
        interface = instance.get_export_index(store, _ENGINE + _VERSION)
        functions = {}
        for name in _FUNCTIONS:
            index = interface and instance.get_export_index(store, name, interface)
            function = index and instance.get_func(store, index)
            if not function:
                raise ComponentError(f"a component of another world: it has no `{name}`")
            functions[name] = Function(store, function)
        return store, functions


def _check(imports: set[str], exports: Sequence[str]) -> None:
    """Raises `ComponentError` for another version or another world."""
    versions = [name.removeprefix(_ENGINE) for name in exports if name.startswith(_ENGINE)]
    if versions and _VERSION not in versions:
        raise ComponentError(
            f"a component of {_ENGINE}{versions[0]}, and this package needs {_ENGINE}{_VERSION}: "
            "use the component and the package of one release"
        )
    if imports != _IMPORTS:
        listed = ", ".join(sorted(imports)) or "nothing"
        raise ComponentError(f"a component of another world: it imports {listed}")
    if not versions:
        raise ComponentError(f"a component of another world: it exports no {_ENGINE}{_VERSION}")


def _linker(engine: Engine) -> Linker:
    linker = Linker(engine)
    # wasmtime's own clock: calling it does not leave native code.
    linker.add_wasip2()
    # Not wasmtime's own random generator: its state is in this process and is copied by forks, even
    # for instances created after the fork.
    linker.allow_shadowing = True
    with linker.root() as root, root.add_instance(_RANDOM) as instance:
        instance.add_func("get-random-u64", _random_u64)
    return linker


def _random_u64(_: object) -> int:
    return int.from_bytes(os.urandom(8))


class Refused(Exception):
    """The component's problems with the options."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


class SessionFailed(Exception):
    """The request fails."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.kind)
        self.failure = failure


class SessionEngine:
    """The contract's engine: an instance with validated options. Thread-safe.

    Its functions raise `SessionFailed`, or `CallFailed`.
    """

    def __init__(self, component: Component, settings: Sequence[Setting]) -> None:
        self._component = component
        self._settings = settings
        self._fuel = _FUEL_PER_CALL
        self._lock = Lock()
        try:
            self._store, self._functions = component.instantiate()
            in_force = self._functions["configure"](settings)
        except Failed as failed:
            raise Refused(failed.payload) from failed
        except (WasmtimeError, UnknownType) as error:
            raise ComponentError(f"the component failed: {error}") from error
        self._is_sound = True
        #: The options in force, with the names of docs/configuration.md.
        self.options: dict[str, Any] = {name: json.loads(value) for name, (_, value) in in_force}

    def begin(self, request: Request) -> Beginning:
        beginning: Beginning = self._call("begin", request)[1]
        return beginning

    def loaded(self, visit: Visit, loaded: Loaded) -> Beginning:
        beginning: Beginning = self._call("loaded", visit, loaded)[1]
        return beginning

    def finish(self, visit: Visit, stored: Stored | None, change: Change) -> Plan:
        plan: Plan = self._call("finish", visit, stored, change)
        return plan

    def resume(
        self, visit: Visit, stored: Stored | None, change: Change, at: int, obstacle: Obstacle
    ) -> Plan:
        plan: Plan = self._call("resume", visit, stored, change, at, obstacle)
        return plan

    def _call(self, name: str, *values: Any) -> Any:
        with self._lock:
            try:
                if not self._is_sound:
                    self._store, self._functions = self._component.instantiate()
                    self._functions["configure"](self._settings)
                # After a trap, the instance's state cannot be trusted: the next call creates a new
                # one.
                self._is_sound = False
                self._store.set_fuel(self._fuel)
                returned = self._functions[name](*values)
            except Failed as failed:
                self._is_sound = True
                raise SessionFailed(failed.payload) from None
            except Exception as error:
                # wasmtime's last line has the reason; the lines above it name functions.
                lines = str(error).strip().split("\n")
                reason = lines[-1].strip() or type(error).__name__
                raise CallFailed(reason) from error
            self._is_sound = True
            return returned
