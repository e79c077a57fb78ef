"""The few calls that a pickle needs for tensors and plain containers, each safe with any arguments."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import torch


class Call:
    """A function that a pickle may call, and onto which it can write nothing.

    Args:
        function: what is called.
    """

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("its pickle writes onto a function")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("its pickle writes onto a function")


class Entries(dict[Any, Any]):
    """OrderedDict and its like; what hangs on the object beside its entries (torch's `_metadata`) is left out."""

    def __setstate__(self, state: Any) -> None:
        """Keep nothing: attributes could cover the methods of a mapping."""


class UntypedStorageKind:
    """Untyped storages, as torch's reader asks for them."""

    __slots__ = ()
    dtype = torch.uint8


def _first(value: Any, *rest: Any) -> Any:
    """The tensor of a parameter or of a tensor on another device."""
    return value


def _entries(*arguments: Any) -> Entries:
    return Entries(arguments[-1] if arguments and isinstance(arguments[-1], (dict, list)) else ())


def _list(entries: Any = (), *rest: Any) -> list[Any]:
    return list(entries)


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """Bytes as protocol 2 keeps them; any other encoding would be a codec to look up."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"its pickle asks for the codec {encoding}")
    return text.encode("latin-1")


def _bytes(data: Any = b"", *encoding: str) -> bytes:
    """Bytes from bytes or from text, but not from a number, which would ask for that much memory."""
    if isinstance(data, str):
        return _encoded(data, *encoding)
    if not isinstance(data, (bytes, bytearray, list)):
        raise pickle.UnpicklingError("its pickle makes bytes of something else")
    return bytes(data)


def _typed_tensor(function: Any, kind: Any, arguments: Any, state: Any) -> torch.Tensor:
    """A tensor of a subclass or with attributes: the tensor alone."""
    if not isinstance(function, Call):
        raise pickle.UnpicklingError("its pickle rebuilds a tensor by an unknown function")
    return function(*arguments)


def _object_of(cls: Any, base: Any, state: Any) -> Any:
    """How protocols 0 and 1 make an object: of a placeholder's class, with nothing in it yet."""
    if not hasattr(cls, "foreign_name"):
        raise pickle.UnpicklingError("its pickle makes an object of no known class")
    return cls()


REBUILT: dict[str, Any] = {
    "torch._utils._rebuild_tensor": Call(torch._utils._rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": Call(torch._utils._rebuild_tensor_v2),
    "torch._utils._rebuild_tensor_v3": Call(torch._utils._rebuild_tensor_v3),
    "torch._utils._rebuild_parameter": Call(_first),
    "torch._utils._rebuild_parameter_with_state": Call(_first),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": Call(_first),
    "torch._tensor._rebuild_from_type_v2": Call(_typed_tensor),
    "torch.storage.UntypedStorage": UntypedStorageKind(),
    "torch.Size": Call(lambda sizes=(): tuple(sizes)),
    "torch.device": Call(lambda *parts: ":".join(map(str, parts))),
    "torch.serialization._get_layout": Call(str),
    "collections.OrderedDict": Call(_entries),
    "collections.Counter": Call(_entries),
    "collections.defaultdict": Call(_entries),
    "collections.deque": Call(_list),
    "builtins.set": Call(_list),
    "builtins.frozenset": Call(_list),
    "builtins.list": Call(_list),
    "builtins.dict": Call(_entries),
    "builtins.tuple": Call(lambda entries=(): tuple(entries)),
    "builtins.int": Call(int),
    "builtins.float": Call(float),
    "builtins.bool": Call(bool),
    "builtins.str": Call(lambda text="": text),
    "builtins.complex": Call(lambda real, imaginary=0.0: complex(real, imaginary)),
    "builtins.bytes": Call(_bytes),
    "builtins.bytearray": Call(_bytes),
    "_codecs.encode": Call(_encoded),
    "copyreg._reconstructor": Call(_object_of),
    **{f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)},
}
"""Full names, and what stands for them; sets and deques become lists, sizes tuples, devices texts."""
