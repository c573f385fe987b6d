"""Tensors and settings out of the pickles in which EDM's networks are published.

A pickle is a program: it names functions to be called, and these keep Python source that their own
loader would compile and run. Here its instructions are read first, and refused if any is one that
plain data do without. Then it runs with stand-ins of this file in place of all that it names, so
that nothing is imported or called for it, and any name but the following is refused:

    torch_utils.persistence._reconstruct_persistent_obj   a record of class name and state; the
                                                          source is dropped, never compiled
    torch.nn.modules.*, dnnlib.util.EasyDict              records of their state
    torch._utils._rebuild_tensor_v2, _rebuild_parameter   a view of a storage, within its bounds
    torch.storage._load_from_bytes                        a storage of as many bytes as are there
    torch.FloatStorage and its kin                        the name of a type
    numpy's scalars, arrays and dtypes                    records, never decoded
    collections.OrderedDict, set                          plain containers

This is the only reader of pickles here. It is used for files that a user names and that end in
.pkl, and there is no fallback to any other.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from .safe_files import plain_file

_STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}
_PERSISTENCE = ("torch_utils.persistence", "_reconstruct_persistent_obj")
_RECORDS = {
    ("dnnlib.util", "EasyDict"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (f"numpy.{core}.{place}", name)
        for core in ("core", "_core")
        for place, name in (
            ("multiarray", "scalar"),
            ("multiarray", "_reconstruct"),
            ("numeric", "_frombuffer"),
        )
    ),
}
# Instructions that call by name in older ways, draw on registries, or refer to what is elsewhere.
_REFUSED = ("INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "PERSID")
_SLACK = 2**26
_DEPTH = 64


def read_weights(path: Path, *, max_parameters: int = 2**31) -> dict[str, Any]:
    """class_name, init_kwargs and state_dict of the network in a pickle; none of its code is run.

    Of several networks that a training snapshot holds, the average over its steps ("ema").

    Raises:
        FileNotFoundError: no such file.
        ValueError: no regular file; too large; corrupt; not a pickle of EDM, or one that names
            anything beyond the list above.
    """
    path = Path(path)
    plain_file(path)
    size = path.stat().st_size
    if size > 8 * max_parameters + _SLACK:
        raise ValueError(
            f"{path.name} has {size} bytes, more than max_parameters = {max_parameters} values "
            "take; raise max_parameters if that is meant"
        )
    with open(path, "rb") as file:
        data = file.read(size)
    _check_program(data, path.name)
    try:
        content = _Reader(io.BytesIO(data)).load()
        network = content.get("ema") if type(content) is dict else content
        if not isinstance(network, _Record) or network.class_name is None:
            raise ValueError("no network in it, neither alone nor as 'ema'")
        state: dict[str, Tensor] = {}
        _collect(network, "", state, _DEPTH)
        kwargs = network.state.get("_init_kwargs") or {}
        if not isinstance(kwargs, dict):
            raise ValueError("its settings are not a dictionary")
    except Exception as error:  # a damaged program makes the interpreter raise errors of every kind
        raise ValueError(
            f"{path.name} is corrupt or no pickle of EDM: {str(error)[:200]}"
        ) from error
    total = sum(value.numel() for value in state.values())
    if total > max_parameters:
        raise ValueError(
            f"{path.name} holds {total} values, more than max_parameters = {max_parameters}; "
            "raise max_parameters if that is meant"
        )
    return {
        "class_name": network.class_name,
        "init_kwargs": {key: _plain(value) for key, value in kwargs.items()},
        "state_dict": state,
    }


def _check_program(data: bytes, name: str) -> None:
    """Read the instructions without running any; refuse those that plain data do without."""
    count = 0
    try:
        for opcode, argument, _ in pickletools.genops(data):
            count += 1
            if opcode.name in _REFUSED:
                raise PermissionError(f"it uses the instruction {opcode.name}")
            if opcode.name.endswith("PUT") and int(argument or 0) > count:
                raise PermissionError("it takes memory ahead of use")
    except PermissionError as error:
        raise ValueError(f"{name} is a pickle that is not run: {error}") from error
    except Exception as error:
        raise ValueError(f"{name} is corrupt or no pickle: {str(error)[:200]}") from error


class _Record:
    """Whatever the pickle rebuilds beside plain data and tensors: its state, and nothing it does.

    class_name is that of EDM's own classes, None of others.
    """

    class_name: str | None = None
    state: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.state = state


def _persistent(meta: Any) -> _Record:
    record = _Record()
    record.class_name = str(meta["class_name"])
    record.__setstate__(meta["state"])
    return record


class _Dictionary(dict[str, Any]):
    """EasyDict, a dictionary whose keys are attributes too."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Reader(pickle.Unpickler):
    """Runs a checked program; every name it may use stands for something of this file."""

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Callable[..., Any]] = {
            _PERSISTENCE: lambda meta: _persistent(meta),
            ("torch._utils", "_rebuild_tensor_v2"): lambda *parts: _view(*parts),
            ("torch._utils", "_rebuild_parameter"): lambda value, *_: _tensor(value),
            ("torch.storage", "_load_from_bytes"): lambda data: _storage(data),
            ("collections", "OrderedDict"): OrderedDict,
            ("builtins", "set"): set,
        }
        found = known.get((module, name))
        if found is not None:
            return found
        # A class of its own for each, so that a program can change no other reader's.
        if (module, name) == ("dnnlib.util", "EasyDict"):
            return type(name, (_Dictionary,), {})
        if (module, name) in _RECORDS or module.startswith("torch.nn.modules."):
            return type(name, (_Record,), {})
        raise PermissionError(f"it names {module}.{name}, which is never called"[:200])


class _StorageReader(pickle.Unpickler):
    """The pickles inside a storage's bytes: plain data, and one storage by its type and length."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return name
        raise PermissionError(f"a storage names {module}.{name}, which is never called"[:200])

    def persistent_load(self, pid: Any) -> Any:
        kind, storage, key, _, count = pid[:5]
        if kind != "storage" or storage not in _STORAGES or type(count) is not int:
            raise ValueError("a storage is not as torch writes it")
        return storage, key, count


def _storage(data: Any) -> Tensor:
    """The values that torch.save wrote of one storage, in its format before archives."""
    if type(data) is not bytes:
        raise ValueError("a storage is not of bytes")
    file: BinaryIO = io.BytesIO(data)
    for _ in range(3):  # magic number, version and byte order
        _StorageReader(file).load()
    (storage, key, count) = _StorageReader(file).load()
    keys = _StorageReader(file).load()
    (stored,) = struct.unpack("<q", file.read(8))
    dtype = _STORAGES[storage]
    rest = len(data) - file.tell()
    if keys != [key] or stored != count or count * dtype.itemsize != rest:
        raise ValueError(f"a storage of {count} values has {rest} bytes")
    if not count:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(bytearray(data[file.tell() :]), dtype=dtype)


def _view(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """A tensor on a storage, refused where it reaches beyond or shows a value twice."""
    sizes, strides = tuple(size), tuple(stride)
    whole = all(type(n) is int and n >= 0 for n in (offset, *sizes, *strides))
    if not whole or len(sizes) != len(strides) or len(sizes) > 8:
        raise ValueError("a tensor has no sizes and strides")
    values = _tensor(storage)
    count = 1
    for n in sizes:
        count *= n
    last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if count and (last >= values.numel() or count > values.numel()):
        raise ValueError(f"a tensor of shape {sizes} reaches beyond its storage")
    return values.as_strided(sizes, strides, offset) if count else values.new_empty(sizes)


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(f"a {type(value).__name__} stands where a tensor must")
    return value


def _collect(module: _Record, prefix: str, state: dict[str, Tensor], depth: int) -> None:
    """Parameters and buffers of a module and those inside it, by their names."""
    if depth == 0:
        raise ValueError(f"its modules are nested deeper than {_DEPTH}")
    for kind in ("_parameters", "_buffers"):
        for name, value in module.state.get(kind, {}).items():
            if value is not None:
                state[f"{prefix}{name}"] = _tensor(value).detach()
    for name, inner in module.state.get("_modules", {}).items():
        if isinstance(inner, _Record):
            _collect(inner, f"{prefix}{name}.", state, depth - 1)
        elif inner is not None:
            raise ValueError(f"a {type(inner).__name__} stands where a module must")


def _plain(value: Any) -> Any:
    """A setting as plain data; tuples and lists of numbers, not of other things."""
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value if not isinstance(inner, list | tuple)]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ValueError(f"a setting is a {type(value).__name__}, not a number, a text or a list")
