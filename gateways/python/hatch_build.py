"""Adds `session.wasm` to the package, from the checkout or the sdist."""

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
        # Not EDGE_SESSION_COMPONENT, which is for running.
        wasm = (root / "../../host/session.wasm").resolve()
        if not wasm.exists():
            raise FileNotFoundError(f"{wasm} is built by `make component`")
        inside = INSIDE if self.target_name == "wheel" else f"src/{INSIDE}"
        build_data["force_include"][str(wasm)] = inside
