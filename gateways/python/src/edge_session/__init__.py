"""express-session's sessions for ASGI applications: the same cookie, the same stored documents.

The logic is a WebAssembly component, `session.wasm`, that decides and never does I/O; this
package asks it, keeps sessions in a store, and speaks ASGI.
"""

from .component import ComponentError, component_path
from .middleware import SessionMiddleware
from .options import OptionsError, Problem
from .session import Session, SessionError
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
