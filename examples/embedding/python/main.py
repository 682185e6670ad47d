"""The component in wasmtime, and a visitor who comes three times, and then with a forged
cookie: `python main.py SESSION.WASM`."""

import os
import sys

from embed import visit
from wasmtime import Engine as Wasmtime
from wasmtime import Store, WasiConfig
from wasmtime.component import Component, Linker


class Engine:
    def __init__(self, path, secrets):
        wasmtime = Wasmtime()
        self.instance, linker = Store(wasmtime), Linker(wasmtime)
        self.instance.set_wasi(WasiConfig())  # a clock and randomness: it asks for nothing else
        linker.add_wasip2()
        # From the system whenever it is asked for: what is read ahead is the same after a fork.
        linker.allow_shadowing = True
        with linker.root() as root, root.add_instance("wasi:random/random@0.2.0") as random:
            random.add_func("get-random-u64", lambda _: int.from_bytes(os.urandom(8)))
        self.exports = linker.instantiate(self.instance, Component.from_file(wasmtime, path))
        options = self.call("defaults", "safe")
        options.secrets = secrets
        self.engine = self.call("open", options)  # or a list of all that is wrong

    def call(self, name, *values):
        interface = self.exports.get_export_index(self.instance, "edge:session/engine@0.1.0")
        index = self.exports.get_export_index(self.instance, name, interface)
        return self.exports.get_func(self.instance, index)(self.instance, *values)

    def begin(self, request):
        return self.call("[method]engine.begin", self.engine, request)

    def resume(self, *values):
        return self.call("[method]engine.resume", self.engine, *values)

    def finish(self, *values):
        return self.call("[method]engine.finish", self.engine, *values)


engine = Engine(sys.argv[1], [b"only for this example: 32 bytes or more"])
sessions, cookie = {}, None
for _ in range(3):
    page, outcome = visit(engine, sessions, cookie)
    print(page)
    set_cookie = getattr(outcome, "set-cookie")
    cookie = set_cookie.split(";")[0] if set_cookie else cookie
print(visit(engine, sessions, cookie.replace("s%3A", "s%3Ax"))[0])
