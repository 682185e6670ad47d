"""Adds `session.wasm` to the package, from the checkout or the sdist."""

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

INSIDE = "edge_session/session.wasm"


class CustomBuildHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # Editable installs and an sdist's sources find the file in its place.
        root = Path(self.root)
        if version == "editable" or (root / "src" / INSIDE).exists():
            return
        made = os.environ.get("EDGE_SESSION_COMPONENT") or root / "../../host/session.wasm"
        wasm = Path(made).resolve()
        if not wasm.exists():
            raise FileNotFoundError(f"{wasm} is built by `make component`")
        inside = INSIDE if self.target_name == "wheel" else f"src/{INSIDE}"
        build_data["force_include"][str(wasm)] = inside
