"""The values of a pickle, by an interpreter that can build containers, numbers and texts and nothing else.

Python's own unpickler calls what a pickle names, allocates what an index in it asks for, and hashes whatever it finds
as a key, so a file of a few bytes can run code, fill the memory or never end. Here every step is one of a short list,
and steps, numbers and keys are bounded.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from typing import Any

MAX_STEPS = 1_000_000
"""Opcodes of one pickle; the weights of a network of 300 layers take about 10,000."""

_INTEGER_BITS = 128
_MARK = object()

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PUSH = frozenset(
    ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
    + ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
    + ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
)
_EMPTY = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUT = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GET = frozenset(("GET", "BINGET", "LONG_BINGET"))
_KEYS = str | bytes | int | float | None


class PickleError(ValueError):
    """Bytes are not a pickle of plain values; the message says why."""


class Inert:
    """Stands for an object of a class that is not known, and for the class."""


def load(file: io.BytesIO, call: Callable[[str, tuple[Any, ...]], Any], storage: Callable[[Any], Any]) -> Any:
    """Return the value of the pickle that starts where `file` is, which is left behind its end.

    A call of a global is answered by `call(module.name, arguments)`, a persistent id by `storage(id)`. A global that is
    not called is a `Global`. Raises `PickleError`, and whatever `call` and `storage` raise.
    """
    return _Interpreter(call, storage).run(file)


class Global(str):
    """The dotted name of a global of the pickle."""

    __slots__ = ()


class _Interpreter:
    def __init__(self, call: Callable[[str, tuple[Any, ...]], Any], storage: Callable[[Any], Any]):
        self._call, self._storage = call, storage
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, file: io.BytesIO) -> Any:
        try:
            for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
                if number >= MAX_STEPS:
                    raise PickleError(f"the pickle has more than {MAX_STEPS:,} steps")
                if opcode.name == "STOP":
                    return self._pop()
                self._step(opcode.name, argument)
        except (IndexError, KeyError) as error:
            raise PickleError(f"the pickle is damaged: {type(error).__name__}") from None
        raise PickleError("the pickle has no end")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _PUSH:
            if isinstance(argument, int) and argument.bit_length() > _INTEGER_BITS:
                raise PickleError(f"the pickle has an integer of {argument.bit_length()} bits")
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _PUT:
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in _GET:
            stack.append(self._memo[argument])
        elif name in _TUPLES:
            stack.append(tuple(self._popped(_TUPLES[name])))
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "GLOBAL":
            stack.append(Global(argument.replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            module, attribute = self._popped(2)
            stack.append(Global(f"{module}.{attribute}"))
        elif name == "BINPERSID":
            stack.append(self._storage(self._pop()))
        elif name in _METHODS:
            _METHODS[name](self)
        elif name not in ("PROTO", "FRAME"):
            raise PickleError(f"the pickle has the step {name}, which no plain value needs")

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise PickleError("the pickle is damaged: a mark where a value should be")
        return value

    def _popped(self, count: int) -> list[Any]:
        return [self._pop() for _ in range(count)][::-1]

    def _to_mark(self) -> list[Any]:
        values = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _tuple(self) -> None:
        self._stack.append(tuple(self._to_mark()))

    def _list(self) -> None:
        self._stack.append(self._to_mark())

    def _dict(self) -> None:
        values = self._to_mark()
        self._stack.append({})
        self._fill(values)

    def _append(self) -> None:
        value = self._pop()
        self._extend([value])

    def _appends(self) -> None:
        self._extend(self._to_mark())

    def _extend(self, values: list[Any]) -> None:
        # The state of an object that is not known goes nowhere.
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(values)
        elif not isinstance(self._stack[-1], Inert):
            raise PickleError("the pickle is damaged: it appends to what is not a list")

    def _set_item(self) -> None:
        self._fill(self._popped(2))

    def _set_items(self) -> None:
        self._fill(self._to_mark())

    def _fill(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if len(values) % 2 or not isinstance(target, dict | Inert):
            raise PickleError("the pickle is damaged: it sets items of what is not a dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            # The hash of a tuple looks at everything in it, again for each time that it is there.
            if not isinstance(key, _KEYS):
                raise PickleError(f"the pickle has a {type(key).__name__} as a key")
            if isinstance(target, dict):
                target[key] = value

    def _reduce(self) -> None:
        function, arguments = self._popped(2)
        if not isinstance(arguments, tuple) or not isinstance(function, Global | Inert):
            raise PickleError("the pickle is damaged: it calls what is not a global")
        self._stack.append(self._call(function, arguments) if isinstance(function, Global) else Inert())

    def _new_object(self) -> None:
        self._popped(2)
        self._stack.append(Inert())

    def _new_object_named(self) -> None:
        self._popped(3)
        self._stack.append(Inert())

    def _build(self) -> None:
        self._pop()

    def _empty_set(self) -> None:
        self._stack.append(Inert())

    def _frozen_set(self) -> None:
        self._to_mark()
        self._stack.append(Inert())


_METHODS: dict[str, Callable[[_Interpreter], object]] = {
    "TUPLE": _Interpreter._tuple,
    "LIST": _Interpreter._list,
    "DICT": _Interpreter._dict,
    "APPEND": _Interpreter._append,
    "APPENDS": _Interpreter._appends,
    "SETITEM": _Interpreter._set_item,
    "SETITEMS": _Interpreter._set_items,
    "REDUCE": _Interpreter._reduce,
    "NEWOBJ": _Interpreter._new_object,
    "NEWOBJ_EX": _Interpreter._new_object_named,
    "BUILD": _Interpreter._build,
    "POP": _Interpreter._build,
    "POP_MARK": _Interpreter._to_mark,
    "EMPTY_SET": _Interpreter._empty_set,
    "ADDITEMS": _Interpreter._appends,
    "FROZENSET": _Interpreter._frozen_set,
}
