"""The component in wasmtime, and a visitor who comes three times, and then with a forged
cookie: `python main.py SESSION.WASM`."""

import os
import sys

from embed import visit
from store import record
from wasmtime import Engine as Wasmtime
from wasmtime import Store, WasiConfig
from wasmtime.component import Component, Linker, Variant


class Failed(Exception):
    """A failure of the contract, or all problems with the options."""


class Engine:
    def __init__(self, path, settings):
        wasmtime = Wasmtime()
        self.instance, linker = Store(wasmtime), Linker(wasmtime)
        self.instance.set_wasi(WasiConfig())  # a clock and randomness: it asks for nothing else
        linker.add_wasip2()
        # From the system whenever it is asked for: what is read ahead is the same after a fork.
        linker.allow_shadowing = True
        with linker.root() as root, root.add_instance("wasi:random/random@0.2.0") as random:
            random.add_func("get-random-u64", lambda _: int.from_bytes(os.urandom(8)))
        self.exports = linker.instantiate(self.instance, Component.from_file(wasmtime, path))
        self.configure(settings)

    def __getattr__(self, name):
        """The functions of the contract."""
        interface = self.exports.get_export_index(self.instance, "edge:session/engine@0.2.0")
        index = self.exports.get_export_index(self.instance, name, interface)
        function = self.exports.get_func(self.instance, index)

        def call(*values):
            result = function(self.instance, *values)
            # A `Variant` where `ok` and `err` would look alike; otherwise the payload alone.
            tag, payload = getattr(result, "tag", "err"), getattr(result, "payload", result)
            if tag == "err":
                raise Failed([vars(it) for it in payload] if name == "configure" else vars(payload))
            return payload if tag == "ok" else result

        return call


secret = Variant("bytes", b"only for this example: 32 bytes or more")
engine = Engine(sys.argv[1], [record(name="secret", value=secret)])
sessions, cookie = {}, ""
for _ in range(3):
    page, outcome = visit(engine, sessions, cookie)
    print(page)
    set_cookie = getattr(outcome, "set-cookie")
    cookie = set_cookie.split(";")[0] if set_cookie else cookie
print(visit(engine, sessions, cookie.replace("s%3A", "s%3Ax"))[0])
