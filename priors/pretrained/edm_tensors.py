"""The tensors inside the pickles of EDM's networks: storages of bytes, and views of them.

The bytes of a storage are pickles too, whose instructions are read before they run.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from typing import Any, BinaryIO

import torch
from torch import Tensor

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
# Instructions that call by name in older ways, draw on registries, or refer to what is elsewhere.
_REFUSED = ("INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "PERSID")
_INSTRUCTIONS = 2**21


def check_program(file: BinaryIO, name: str) -> None:
    """Read the instructions without running any; refuse those that plain data do without."""
    count = 0
    try:
        for opcode, argument, _ in pickletools.genops(file):
            count += 1
            if count > _INSTRUCTIONS:
                raise PermissionError(f"it has more than {_INSTRUCTIONS} instructions")
            if opcode.name in _REFUSED:
                raise PermissionError(f"it uses the instruction {opcode.name}")
            if opcode.name.endswith("PUT") and int(argument or 0) > count:
                raise PermissionError("it takes memory ahead of use")
    except PermissionError as error:
        raise ValueError(f"{name} is a pickle that is not run: {error}") from error
    except Exception as error:
        raise ValueError(f"{name} is corrupt or no pickle: {str(error)[:200]}") from error


class Held:
    """A tensor out of a program's reach, which could call methods of its own on a bare one."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a tensor is given a state beside its values")


class _StorageReader(pickle.Unpickler):
    """The pickles inside a storage's bytes: plain data, and one storage by its type and length."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return name
        raise PermissionError(f"a storage names {module}.{name}, which is never called"[:200])

    def persistent_load(self, pid: Any) -> Any:
        kind, storage, key, _, count = pid[:5]
        known = kind == "storage" and type(storage) is str and storage in _STORAGES
        if not known or type(key) is not str or type(count) is not int:
            raise ValueError("a storage is not as torch writes it")
        return storage, key, count


def _next(file: BinaryIO) -> Any:
    start = file.tell()
    check_program(file, "a storage")
    file.seek(start)
    return _StorageReader(file).load()


def storage_of(data: Any) -> Held:
    """The values that torch.save wrote of one storage, in its format before archives."""
    if type(data) is not bytes:
        raise ValueError("a storage is not of bytes")
    file: BinaryIO = io.BytesIO(data)
    for _ in range(3):  # magic number, version and byte order
        _next(file)
    (storage, key, count) = _next(file)
    keys = _next(file)
    (stored,) = struct.unpack("<q", file.read(8))
    dtype = _STORAGES[storage]
    rest = len(data) - file.tell()
    if keys != [key] or stored != count or count * dtype.itemsize != rest:
        raise ValueError(f"a storage of {count} values has {rest} bytes")
    if not count:
        return Held(torch.empty(0, dtype=dtype))
    return Held(torch.frombuffer(bytearray(memoryview(data)[file.tell() :]), dtype=dtype))


def view(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Held:
    """A tensor on a storage, refused where it reaches beyond or shows a value twice."""
    if type(size) is not tuple or type(stride) is not tuple or not len(size) == len(stride) <= 8:
        raise ValueError("a tensor has no sizes and strides")
    sizes, strides = size, stride
    if not all(type(n) is int and n >= 0 for n in (offset, *sizes, *strides)):
        raise ValueError("a tensor has no sizes and strides")
    values = tensor_of(storage)
    count = 1
    for n in sizes:
        count *= n
    last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if count and (last >= values.numel() or count > values.numel()):
        raise ValueError(f"a tensor of shape {sizes} reaches beyond its storage")
    return Held(values.as_strided(sizes, strides, offset) if count else values.new_empty(sizes))


def tensor_of(value: Any) -> Tensor:
    if type(value) is not Held:
        raise ValueError(f"a {type(value).__name__} stands where a tensor must")
    return value.tensor
