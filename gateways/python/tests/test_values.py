"""Values that are passed to a component and back."""

import ctypes
from ctypes import byref, string_at
from typing import Any

import pytest
from wasmtime import Engine, Store, WasmtimeError, _ffi
from wasmtime.component import Component, Linker

from edge_session import _values

#: Returns its argument: a list, which is an address and a size.
ECHO = """
(component
  (core module $echo
    (memory (export "memory") 2)
    (global $free (mut i32) (i32.const 64))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.set $free (i32.add (local.get $at) (local.get 3)))
      (local.get $at))
    (func (export "echo") (param i32 i32) (result i32)
      (i32.store (i32.const 16) (local.get 0))
      (i32.store (i32.const 20) (local.get 1))
      (i32.const 16)))
  (core instance $echo (instantiate $echo))
  (func (export "echo") (param "list" (list TYPE)) (result (list TYPE))
    (canon lift (core func $echo "echo")
      (memory (core memory $echo "memory")) (realloc (core func $echo "realloc")))))
"""


def echo(type_: str, *lists: Any) -> list[Any]:
    engine = Engine()
    store = Store(engine)
    component = Component(engine, ECHO.replace("TYPE", type_))
    instance = Linker(engine).instantiate(store, component)
    function = instance.get_func(store, "echo")
    assert function
    ((_, argument_type),) = function.type(store).params
    memory = _values._Memory()
    at = memory.block(_values._VAL)
    put, get = _values._putter(argument_type, at, memory), _values._getter(argument_type)
    answers = []
    for values in lists:
        put(values)
        result = _values._Val()
        argument = ctypes.cast(at, ctypes.POINTER(_values._Val))
        error = _ffi.wasmtime_component_func_call(
            byref(function._func), store._context(), argument, 1, byref(result), 1
        )
        if error:
            raise WasmtimeError._from_ptr(error)
        answers.append(get(*_values._read_val(string_at(byref(result), _values._VAL))))
        _ffi.wasmtime_component_val_delete(byref(result))
    return answers


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        ("string", ["", "a", "é\U0001f600", "x" * 1000]),
        ("u32", [0, 1, 2**32 - 1]),
        ("u64", [0, 1, 2**64 - 1]),
        ("bool", [True, False]),
        ("(option string)", [None, "", "a"]),
        ("(list string)", [[], ["a"], ["b"] * 9]),
        ("(list u8)", [b"", b"a", bytes(range(256))]),
        ("(result (option u64) (error string))", [("ok", None), ("ok", 2**63), ("err", "why")]),
        ("(result (error u32))", [("ok", None), ("err", 7)]),
        ("(result)", [("ok", None), ("err", None)]),
    ],
)
def test_lists_of_any_length_come_back_as_they_went(type_: str, values: list[Any]) -> None:
    # Longer ones than were prepared for, then shorter ones.
    lists = [[], values, values * 5, values[:1], []]
    assert echo(type_, *lists) == lists
