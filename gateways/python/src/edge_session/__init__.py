"""express-session's sessions for ASGI applications: the same cookie, the same stored documents.

The logic is a WebAssembly component, `session.wasm`, that makes decisions and never does I/O. This
package runs it, keeps sessions in a store, and implements ASGI.

`edge_session.headers` is for applications behind the gateway, which passes sessions in headers. It
needs none of this.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._dictionary import SessionError
    from .component import ComponentError, component_path
    from .middleware import SessionMiddleware
    from .options import OptionsError, Problem
    from .session import Session
    from .store import Content, MemoryStore, Store, Stored, StoreError

__all__ = [
    "ComponentError",
    "Content",
    "MemoryStore",
    "OptionsError",
    "Problem",
    "Session",
    "SessionError",
    "SessionMiddleware",
    "Store",
    "StoreError",
    "Stored",
    "component_path",
]

_PLACES = {
    "_dictionary": ("SessionError",),
    "component": ("ComponentError", "component_path"),
    "middleware": ("SessionMiddleware",),
    "options": ("OptionsError", "Problem"),
    "session": ("Session",),
    "store": ("Content", "MemoryStore", "Store", "StoreError", "Stored"),
}
_PLACE = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Imports a name on first use, so that `edge_session.headers` does not need wasmtime."""
    if name not in _PLACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_PLACE[name]}", __name__), name)
    return value
