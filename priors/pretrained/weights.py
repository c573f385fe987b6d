"""Weights of unknown origin: read within limits, and put into a network only where they fit.

Nothing in a file is ever executed: safetensors, or torch files through weights_only=True.
"""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .safe_files import plain_file, tensor_shapes

Module = TypeVar("Module", bound=nn.Module)

# What an archive adds to its tensors: names, shapes, alignment.
_OVERHEAD = 2**26
_DEPTH = 64
# Optimisers keep numbers as NumPy scalars: data, under the names of NumPy 1 and 2.
_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY_SCALARS: list[Any] = [
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]


def read_weights(path: Path, *, max_parameters: int = 2**31) -> dict[str, Any]:
    """The content of a safetensors or torch file: nested dicts and lists of CPU tensors and values.

    safetensors give a flat dictionary; a torch file gives what was saved, read by torch.load with
    weights_only=True. Tensors are views of the file where its layout allows it, so that memory is
    taken only for those that are copied out, as `fill` does.

    Args:
        path: a regular file.
        max_parameters: refuse files that declare more values (four bytes each in a torch file,
            which may hold an optimiser's state too), before memory is taken for them.
    Raises:
        FileNotFoundError: no such file.
        ValueError: no regular file; corrupt or truncated; a pickle that asks for code; too
            large; something else than plain tensors and values.
    """
    path = Path(path)
    plain_file(path)
    with open(path, "rb") as file:
        start = file.read(9)
    # A safetensors file starts with the length of its header, 8 bytes, and the header's brace.
    if start[8:] == b"{" or path.suffix == ".safetensors":
        return _read_safetensors(path, max_parameters)
    return _read_torch(path, start[:4] == b"PK\x03\x04", max_parameters)


def fill(
    module: Module,
    tensors: Mapping[str, Tensor],
    *,
    source: str,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Module:
    """Give a module that was built on torch.device("meta") its weights, and return it.

    Names and shapes must be equal, none missing and none left over; values are floating and
    finite, converted to dtype and copied to the device one by one. Buffers that are not in the
    module's state_dict it must make itself, off the meta device.

    Args:
        source: what to call the file in errors.
    Raises:
        ValueError: tensors that do not fit (they are listed), or are not floating and finite.
    """
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    check_fit({name: tuple(v.shape) for name, v in tensors.items()}, expected, source)
    state = {}
    for name, value in tensors.items():
        if not value.is_floating_point():
            raise ValueError(f"{source}: {name} is of type {value.dtype}, expected floating point")
        copied = value.detach().to(device=device or "cpu", dtype=dtype, copy=True).contiguous()
        if not bool(torch.isfinite(copied).all()):
            raise ValueError(f"{source}: {name} holds values that are not finite")
        state[name] = copied
    module.load_state_dict(state, strict=True, assign=True)
    left = [n for n, v in (*module.named_parameters(), *module.named_buffers()) if v.is_meta]
    if left:
        raise ValueError(
            f"{source}: this network has constants that no weights file holds: {', '.join(left)}"[
                :400
            ]
        )
    return module


def check_fit(
    shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], source: str
) -> None:
    """Refuse tensors that are not a network's: missing, unexpected or of another shape."""
    problems = [f"missing {name}" for name in sorted(set(expected) - set(shapes))]
    problems += [f"unexpected {name:.200}" for name in sorted(set(shapes) - set(expected))]
    problems += [
        f"{name} has shape {shapes[name]}, expected {shape}"
        for name, shape in sorted(expected.items())
        if name in shapes and shapes[name] != shape
    ]
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(f"{source} does not fit the network: {'; '.join(problems[:8])}{more}")


def _read_safetensors(path: Path, max_parameters: int) -> dict[str, Any]:
    shapes = tensor_shapes(path)
    _check_total(path, sum(map(math.prod, shapes.values())), max_parameters)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in shapes}
    except SafetensorError as error:
        raise ValueError(f"{path.name} is corrupt: {error}") from error


def _read_torch(path: Path, zipped: bool, max_parameters: int) -> dict[str, Any]:
    declared = _declared_bytes(path) if zipped else path.stat().st_size
    _check_total(path, max(declared - _OVERHEAD, 0) // 4, max_parameters)
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
        raise ValueError(
            f"{path.name} is corrupt, or a pickle that asks for code, which is never run"
            f"{f' ({asked[1]})' if asked else ''}. Where you trust it, convert it once with "
            "safetensors.torch.save_file(network.state_dict(), path)"
        ) from error
    except Exception as error:  # damaged bytes make torch's readers raise errors of every kind
        raise ValueError(
            f"{path.name} is corrupt, truncated or no file of weights: {str(error)[:200]}"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(
            f"{path.name} holds a {type(content).__name__}, expected a dictionary with names: save "
            "network.state_dict()"
        )
    _check_total(path, sum(t.numel() for t in _tensors(content, path.name)), max_parameters)
    return dict(content)


def _check_total(path: Path, total: int, max_parameters: int) -> None:
    if total > max_parameters:
        raise ValueError(
            f"{path.name} declares {total} values, more than max_parameters = {max_parameters}; "
            "raise max_parameters if that is meant"
        )


def _declared_bytes(path: Path) -> int:
    """Bytes that the members of a torch archive say they hold: stored, so no more than the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path.name} is corrupt or truncated: {error}"[:300]) from error
    declared = sum(member.file_size for member in members)
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError(f"{path.name} is a compressed archive, as torch.save never writes")
    if declared > path.stat().st_size:
        raise ValueError(f"{path.name} is corrupt: its members overlap")
    return declared


def _tensors(content: Any, name: str) -> Iterator[Tensor]:
    """All tensors of nested dicts, lists and tuples; others than plain CPU ones are refused."""
    seen: set[int] = set()
    stack = [(content, 0)]
    while stack:
        value, depth = stack.pop()
        if isinstance(value, Tensor):
            plain = value.layout == torch.strided and value.device.type == "cpu"
            if not plain or value.is_quantized or _spread(value):
                raise ValueError(f"{name} holds a tensor that is not a plain one in memory")
            yield value
        elif isinstance(value, dict | list | tuple):
            if depth > _DEPTH:
                raise ValueError(f"{name} is nested deeper than {_DEPTH} levels")
            if id(value) not in seen:
                seen.add(id(value))
                inner = value.values() if isinstance(value, dict) else value
                stack.extend((v, depth + 1) for v in inner)


def _spread(value: Tensor) -> bool:
    """Whether a tensor shows more values than its storage holds."""
    return value.numel() * value.element_size() > value.untyped_storage().nbytes()
