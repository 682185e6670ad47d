"""Converts values between Python and the component, for functions that every request calls.

`wasmtime.component.Func` queries the type of every value at each call, and allocates every value
with a separate call, which takes 2 ms per request. This module reads the types once, lays out the
arguments' memory once and writes to it in place, and reads results in whole blocks. Both sides use
wasmtime's C API (`wasmtime/component/val.h`): a value is its kind and a union of at most three
words.
"""

import ctypes
from array import array
from collections.abc import Callable, Sequence
from ctypes import addressof, byref, string_at
from functools import partial
from struct import Struct
from typing import Any, TypeAlias

from wasmtime import Store, WasmtimeError, _ffi
from wasmtime.component import (
    U8,
    U16,
    U32,
    U64,
    Bool,
    EnumType,
    Func,
    ListType,
    OptionType,
    RecordType,
    ResultType,
    String,
    ValType,
    VariantType,
)

from ._contract import RECORDS

#: Writes a value to its place in the arguments' memory.
Put: TypeAlias = Callable[[Any], None]
#: Creates a value from the three words of a union.
Get: TypeAlias = Callable[[int, int, int], Any]

_VAL = 32
_ENTRY = 48
_Val = _ffi.wasmtime_component_val_t
_Entry = _ffi.wasmtime_component_valrecord_entry_t
if (_Val.of.offset, ctypes.sizeof(_Val)) != (8, _VAL) or (
    (_Entry.val.offset, ctypes.sizeof(_Entry)) != (16, _ENTRY)
):
    raise ImportError("this version of wasmtime has a different layout of values")

_read_val = Struct("<8x3Q").unpack

#: Values and entries of records are also written as words.
_WORD = 8


class UnknownType(Exception):
    """The component has a type that is not in the contract."""


class Failed(Exception):
    """The function returned the error `payload`."""

    def __init__(self, payload: Any) -> None:
        super().__init__(payload)
        self.payload = payload


class Function:
    """A function of an instance that returns a `result`. Not thread-safe."""

    def __init__(self, store: Store, function: Func) -> None:
        type_ = function.type(store)
        if not isinstance(type_.result, ResultType):
            raise UnknownType("a function that does not return a result")
        self._get = _getter(type_.result)
        types = [type_ for _, type_ in type_.params]
        memory = _Memory()
        at = memory.block(_VAL * len(types))
        self._puts = [
            _putter(type_, at + _VAL * number, memory) for number, type_ in enumerate(types)
        ]
        self._result = _Val()
        self._result_at = addressof(self._result)
        # These must outlive the calls.
        self._kept = (memory, function, store)
        self._call = (
            byref(function._func),
            store._context(),
            ctypes.cast(at, ctypes.POINTER(_Val)),
            len(types),
            byref(self._result),
            1,
        )

    def __call__(self, *values: Any) -> Any:
        """Returns the payload of `ok`, and raises that of `err` in `Failed`."""
        for put, value in zip(self._puts, values, strict=True):
            put(value)
        error = _ffi.wasmtime_component_func_call(*self._call)
        if error:
            raise WasmtimeError._from_ptr(error)
        try:
            case, payload = self._get(*_read_val(string_at(self._result_at, _VAL)))
        finally:
            _ffi.wasmtime_component_val_delete(byref(self._result))
            # The next call frees what it finds here before it writes.
            self._result.kind = _ffi.WASMTIME_COMPONENT_BOOL.value
        if case == "err":
            raise Failed(payload)
        return payload


class _Memory:
    """Blocks with fixed addresses that live as long as this object."""

    def __init__(self) -> None:
        self._blocks: list[Any] = []

    def block(self, size: int) -> int:
        block = ctypes.create_string_buffer(max(size, 1))
        self._blocks.append(block)
        return addressof(block)

    def text(self, at: int, text: str) -> None:
        """Writes a constant text."""
        raw = text.encode()
        slot = ctypes.c_char_p.from_address(at + 8)
        slot.value = raw
        ctypes.c_size_t.from_address(at).value = len(raw)
        self._blocks.append(slot)


def _names(type_: RecordType) -> tuple[str, ...]:
    return tuple(name.replace("-", "_") for name, _ in type_.fields)


def _record(type_: RecordType) -> Any:
    names = _names(type_)
    if names not in RECORDS:
        raise UnknownType(f"a record of {', '.join(names)}")
    return RECORDS[names]


def _is_bytes(type_: ListType) -> bool:
    return isinstance(type_.element, U8)


# ------------------------------------------------------------- Python to component ----


def _putter(type_: ValType, at: int, memory: _Memory) -> Put:
    """Prepares the value at the address `at`, whose type never changes."""
    kind = ctypes.c_uint8.from_address(at)
    match type_:
        case Bool():
            kind.value = _ffi.WASMTIME_COMPONENT_BOOL.value
            return _scalar(ctypes.c_bool.from_address(at + 8))
        case U32():
            kind.value = _ffi.WASMTIME_COMPONENT_U32.value
            return _scalar(ctypes.c_uint32.from_address(at + 8))
        case U64():
            kind.value = _ffi.WASMTIME_COMPONENT_U64.value
            return _scalar(ctypes.c_uint64.from_address(at + 8))
        case String():
            kind.value = _ffi.WASMTIME_COMPONENT_STRING.value
            return _text(at + 8)
        case EnumType():
            kind.value = _ffi.WASMTIME_COMPONENT_ENUM.value
            return _text(at + 8)
        case OptionType():
            kind.value = _ffi.WASMTIME_COMPONENT_OPTION.value
            return _option(type_, at, memory)
        case ListType():
            kind.value = _ffi.WASMTIME_COMPONENT_LIST.value
            return _bytes(at) if _is_bytes(type_) else _list(type_, at, memory)
        case RecordType():
            kind.value = _ffi.WASMTIME_COMPONENT_RECORD.value
            return _fields(type_, at, memory)
        case VariantType():
            kind.value = _ffi.WASMTIME_COMPONENT_VARIANT.value
            return _variant(type_, at, memory)
        case ResultType():
            kind.value = _ffi.WASMTIME_COMPONENT_RESULT.value
            return _result(type_, at, memory)
    raise UnknownType(f"an argument of the type {type(type_).__name__}")


def _scalar(slot: Any) -> Put:
    def put(value: Any) -> None:
        slot.value = value

    return put


def _text(at: int) -> Put:
    size = ctypes.c_size_t.from_address(at)
    # Keeps the referenced bytes alive.
    data = ctypes.c_char_p.from_address(at + 8)

    def put(value: str) -> None:
        text = value.encode()
        size.value = len(text)
        data.value = text

    return put


def _option(type_: OptionType, at: int, memory: _Memory) -> Put:
    some = memory.block(_VAL)
    put_some = _putter(type_.payload, some, memory)
    pointer = ctypes.c_void_p.from_address(at + 8)

    def put(value: Any) -> None:
        if value is None:
            pointer.value = None
        else:
            put_some(value)
            pointer.value = some

    return put


def _bytes(at: int) -> Put:
    size = ctypes.c_size_t.from_address(at + 8)
    data = ctypes.c_void_p.from_address(at + 16)
    kept: Any = None

    def put(value: bytes) -> None:
        nonlocal kept
        # Every byte is a separate value.
        values = bytearray(_VAL * len(value))
        values[0::_VAL] = bytes([_ffi.WASMTIME_COMPONENT_U8.value]) * len(value)
        values[8::_VAL] = value
        kept = (ctypes.c_char * len(values)).from_buffer(values)
        size.value = len(value)
        data.value = addressof(kept)

    return put


def _list(type_: ListType, at: int, memory: _Memory) -> Put:
    element = type_.element
    size = ctypes.c_size_t.from_address(at + 8)
    data = ctypes.c_void_p.from_address(at + 16)

    def places(count: int, memory: _Memory) -> tuple[int, list[Put]]:
        block = memory.block(_VAL * count)
        return block, [_putter(element, block + _VAL * n, memory) for n in range(count)]

    few = places(4, memory)
    many: Any  # what it references, until the next call
    texts = _records_of_texts(element, memory) if isinstance(element, RecordType) else None

    def put(values: Sequence[Any]) -> None:
        nonlocal many
        block, puts = few
        if len(values) > len(puts) and texts is not None:
            many = texts(values)
            size.value = len(values)
            data.value = addressof(many[0])
            return
        if len(values) > len(puts):
            own = _Memory()
            many = own, places(len(values), own)
            block, puts = many[1]
        for put_one, value in zip(puts, values, strict=False):
            put_one(value)
        size.value = len(values)
        data.value = block

    return put


def _records_of_texts(
    type_: RecordType, memory: _Memory
) -> Callable[[Sequence[Any]], tuple[Any, ...]] | None:
    """Returns a function that writes many such records at once: prepared places cost a hundred
    times as much.

    Returns None unless all fields are texts or optional texts.
    """
    is_optional = []
    for _, field in type_.fields:
        is_optional.append(isinstance(field, OptionType))
        if not isinstance(field.payload if isinstance(field, OptionType) else field, String):
            return None
    names = memory.block(_ENTRY * len(is_optional))
    for number, (name, _) in enumerate(type_.fields):
        memory.text(names + _ENTRY * number, name)
    named = [
        Struct("<2Q").unpack(string_at(names + _ENTRY * number, 2 * _WORD))
        for number in range(len(is_optional))
    ]
    record, text, option = (
        kind.value
        for kind in (
            _ffi.WASMTIME_COMPONENT_RECORD,
            _ffi.WASMTIME_COMPONENT_STRING,
            _ffi.WASMTIME_COMPONENT_OPTION,
        )
    )

    def write(records: Sequence[Any]) -> tuple[Any, ...]:
        """Returns the records and what they reference."""
        raws = [value.encode() for fields in records for value in fields if value is not None]
        data = _buffer(b"".join(raws))
        entries = (ctypes.c_char * (_ENTRY * len(named) * len(records)))()
        somes = (ctypes.c_char * (_VAL * len(named) * len(records)))()
        at_data, at_entries, at_some = addressof(data), addressof(entries), addressof(somes)
        of_records, of_entries, of_somes = array("Q"), array("Q"), array("Q")
        lengths = iter(map(len, raws))
        for fields in records:
            of_records.extend((record, len(named), at_entries, 0))
            at_entries += _ENTRY * len(named)
            for name, may_miss, value in zip(named, is_optional, fields, strict=True):
                if value is None:
                    of_entries.extend((*name, option, 0, 0, 0))
                    continue
                length = next(lengths)
                if may_miss:
                    of_entries.extend((*name, option, at_some, 0, 0))
                    of_somes.extend((text, length, at_data, 0))
                    at_some += _VAL
                else:
                    of_entries.extend((*name, text, length, at_data, 0))
                at_data += length
        ctypes.memmove(entries, of_entries.tobytes(), len(entries))
        ctypes.memmove(somes, of_somes.tobytes(), _WORD * len(of_somes))
        return _buffer(of_records.tobytes()), entries, somes, data

    return write


def _buffer(raw: bytes) -> Any:
    return ctypes.create_string_buffer(raw, max(len(raw), 1))


def _fields(type_: RecordType, at: int, memory: _Memory) -> Put:
    _record(type_)
    fields = type_.fields
    block = memory.block(_ENTRY * len(fields))
    ctypes.c_size_t.from_address(at + 8).value = len(fields)
    ctypes.c_void_p.from_address(at + 16).value = block
    puts = []
    for number, (name, field) in enumerate(fields):
        entry = block + _ENTRY * number
        memory.text(entry, name)
        puts.append(_putter(field, entry + 16, memory))

    def put(record: Sequence[Any]) -> None:
        for put_field, value in zip(puts, record, strict=True):
            put_field(value)

    return put


def _variant(type_: VariantType, at: int, memory: _Memory) -> Put:
    size = ctypes.c_size_t.from_address(at + 8)
    name = ctypes.c_char_p.from_address(at + 16)
    pointer = ctypes.c_void_p.from_address(at + 24)
    cases: dict[str, tuple[bytes, int | None, Put | None]] = {}
    for case, payload in type_.cases:
        if payload is None:
            cases[case] = (case.encode(), None, None)
        else:
            place = memory.block(_VAL)
            cases[case] = (case.encode(), place, _putter(payload, place, memory))

    def put(value: tuple[str, Any]) -> None:
        case, payload = value
        raw, place, put_payload = cases[case]
        if put_payload is not None:
            put_payload(payload)
        size.value = len(raw)
        name.value = raw
        pointer.value = place

    return put


def _result(type_: ResultType, at: int, memory: _Memory) -> Put:
    is_ok = ctypes.c_bool.from_address(at + 8)
    pointer = ctypes.c_void_p.from_address(at + 16)
    cases: dict[str, tuple[int | None, Put | None]] = {}
    for case, payload in (("ok", type_.ok), ("err", type_.err)):
        if payload is None:
            cases[case] = (None, None)
        else:
            place = memory.block(_VAL)
            cases[case] = (place, _putter(payload, place, memory))

    def put(value: tuple[str, Any]) -> None:
        case, payload = value
        place, put_payload = cases[case]
        if put_payload is not None:
            put_payload(payload)
        is_ok.value = case == "ok"
        pointer.value = place

    return put


# ------------------------------------------------------------- component to Python ----


def _getter(type_: ValType) -> Get:
    match type_:
        case Bool():
            return lambda word, _b, _c: word & 0xFF != 0
        case U16():
            return lambda word, _b, _c: word & 0xFFFF
        case U32():
            return lambda word, _b, _c: word & 0xFFFFFFFF
        case U64():
            return lambda word, _b, _c: word
        case String():
            return lambda size, data, _c: string_at(data, size).decode()
        case EnumType():
            names = {name.encode(): name for name in type_.names}
            return lambda size, data, _c: names[string_at(data, size)]
        case OptionType():
            return _get_option(type_)
        case ListType():
            return _get_list(type_)
        case RecordType():
            return _get_record(type_)
        case VariantType():
            return _get_variant(type_)
        case ResultType():
            return _get_result(type_)
    raise UnknownType(f"a result of the type {type(type_).__name__}")


def _get_option(type_: OptionType) -> Get:
    get_some = _getter(type_.payload)

    def get(pointer: int, _b: int, _c: int) -> Any:
        return get_some(*_read_val(string_at(pointer, _VAL))) if pointer else None

    return get


def _get_list(type_: ListType) -> Get:
    if _is_bytes(type_):
        # Every byte is a separate value.
        return lambda size, data, _c: string_at(data, _VAL * size)[8::_VAL]
    get_one = _getter(type_.element)

    def get(size: int, data: int, _c: int) -> Any:
        places = range(data, data + _VAL * size, _VAL)
        return [get_one(*_read_val(string_at(place, _VAL))) for place in places]

    return get


def _get_record(type_: RecordType) -> Get:
    make = partial(tuple.__new__, _record(type_))  # like `_make`, but faster
    fields = type_.fields
    size = _ENTRY * len(fields)
    read = Struct("<" + "24x3Q" * len(fields)).unpack
    gets = [(_getter(field), 3 * number) for number, (_, field) in enumerate(fields)]

    def get(_size: int, data: int, _c: int) -> Any:
        words = read(string_at(data, size))
        return make([get(words[n], words[n + 1], words[n + 2]) for get, n in gets])

    return get


def _get_variant(type_: VariantType) -> Get:
    cases: dict[bytes, tuple[str, Get | None]] = {
        name.encode(): (name, None if payload is None else _getter(payload))
        for name, payload in type_.cases
    }

    def get(size: int, name: int, pointer: int) -> Any:
        case, get_payload = cases[string_at(name, size)]
        if get_payload is None:
            return (case, None)
        return (case, get_payload(*_read_val(string_at(pointer, _VAL))))

    return get


def _get_result(type_: ResultType) -> Get:
    get_ok, get_err = (
        None if payload is None else _getter(payload) for payload in (type_.ok, type_.err)
    )

    def get(is_ok: int, pointer: int, _c: int) -> Any:
        case, get_payload = ("ok", get_ok) if is_ok & 0xFF else ("err", get_err)
        if get_payload is None:
            return (case, None)
        return (case, get_payload(*_read_val(string_at(pointer, _VAL))))

    return get
