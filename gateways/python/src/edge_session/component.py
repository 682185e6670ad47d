"""`session.wasm`: loading, compiling, and its running instances."""

import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from wasmtime import Config, Engine, Store, WasiConfig, WasmtimeError
from wasmtime.component import Component as Compiled
from wasmtime.component import Func, Instance, Linker, RecordType, ResourceAny

from ._contract import Change, Exchange, Known, Request, Step, StoreReply
from ._forks import Lock
from ._values import Function, UnknownType

_INTERFACE = "edge:session/engine@0.1.0"

_RANDOM = "wasi:random/random@0.2.0"

#: The only imports that the component may have: the clock and random numbers.
_IMPORTS = {"wasi:clocks/wall-clock@0.2.0", _RANDOM}

#: The maximum memory of an instance. A session is held in it several times.
_MAX_MEMORY = 128 << 20

#: A call takes tens of thousands of instructions, or tens of millions with a session of 1 MiB. A
#: call that takes this many, about a second, is aborted.
_FUEL_PER_CALL = 5_000_000_000


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
        try:
            self._compiled = Compiled(self._engine, wasm)
        except WasmtimeError as error:
            raise ComponentError(f"not a WebAssembly component: {error}") from error
        imports = set(self._compiled.type.imports(self._engine))
        if imports != _IMPORTS:
            listed = ", ".join(sorted(imports)) or "nothing"
            raise ComponentError(f"a component of another world: it imports {listed}")
        self._linker = _linker(self._engine)
        _, store, functions = self.instantiate()
        function = functions["open"].type(store)
        _, options = function.params[0]
        if not isinstance(options, RecordType):
            raise ComponentError("a component of another world: `open` takes no options")
        #: The type of the options, used to validate them.
        self.options_type = options

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

    def instantiate(self) -> tuple[Instance, Store, dict[str, Func]]:
        """Creates an instance; returns it with its functions."""
        store = Store(self._engine)
        store.set_fuel(_FUEL_PER_CALL)
        store.set_limits(memory_size=_MAX_MEMORY)
        # No environment, files, streams or sockets.
        store.set_wasi(WasiConfig())
        instance = self._linker.instantiate(store, self._compiled)
        interface = instance.get_export_index(store, _INTERFACE)
        functions = {}
        for name in ("defaults", "open", *(f"[method]engine.{method}" for method in _METHODS)):
            index = interface and instance.get_export_index(store, name, interface)
            function = index and instance.get_func(store, index)
            if not function:
                raise ComponentError(f"a component of another world: it has no `{name}`")
            functions[name] = function
        return instance, store, functions

    def defaults(self, preset: str) -> Any:
        """Returns a preset's record `options`. `secrets` is empty and must be set."""
        _, store, functions = self.instantiate()
        return functions["defaults"](store, preset)


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


_METHODS = ("begin", "finish", "resume")


class Refused(Exception):
    """The component's problems with the options: names and messages."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__(problems)
        self.problems = problems


class _Open:
    """An instance with an open engine."""

    def __init__(self, component: Component, options: Any) -> None:
        _, self.store, functions = component.instantiate()
        opened = functions["open"](self.store, options)
        if not isinstance(opened, ResourceAny):
            raise Refused([(problem.name, problem.message) for problem in opened])
        self.begin, self.finish, self.resume = (
            Function(self.store, functions[f"[method]engine.{method}"], opened)
            for method in _METHODS
        )


class SessionEngine:
    """The contract's engine: an instance with validated options. Thread-safe."""

    def __init__(self, component: Component, options: Any) -> None:
        self._component = component
        self._options = options
        self._fuel = _FUEL_PER_CALL
        self._lock = Lock()
        try:
            self._instance: _Open | None = _Open(component, options)
        except (WasmtimeError, UnknownType) as error:
            raise ComponentError(f"the component failed: {error}") from error

    @property
    def believes_forwarded_proto(self) -> bool:
        """Whether the component needs X-Forwarded-Proto."""
        return self._options.proxy is True

    @property
    def is_safe(self) -> bool:
        """Whether the preset is `safe`, for behaviours that have no option of their own."""
        preset: str = self._options.preset
        return preset == "safe"

    @property
    def max_session_bytes(self) -> int:
        """The maximum size of a stored session."""
        most: int = getattr(self._options, "max-session-bytes")
        return most

    def begin(self, request: Request) -> Step:
        return self._call("begin", request)

    def finish(self, exchange: Exchange, known: Known, change: Change) -> Step:
        return self._call("finish", exchange, known, change)

    def resume(
        self, exchange: Exchange, known: Known, change: Change | None, reply: StoreReply
    ) -> Step:
        return self._call("resume", exchange, known, change, reply)

    def _call(self, method: str, *values: Any) -> Step:
        with self._lock:
            # After a failure, the instance's state cannot be trusted: the next call creates a new
            # one.
            instance, self._instance = self._instance, None
            try:
                if instance is None:
                    instance = _Open(self._component, self._options)
                instance.store.set_fuel(self._fuel)
                step: Step
                _, step = getattr(instance, method)(*values)
            except Exception as error:
                # wasmtime's last line has the reason; the lines above it name functions.
                lines = str(error).strip().split("\n")
                reason = lines[-1].strip() or type(error).__name__
                raise CallFailed(reason) from error
            self._instance = instance
            return step
