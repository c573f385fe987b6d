"""Weights of unknown origin, read within limits: nothing in a file is ever executed."""

from __future__ import annotations

import os
import pickle
import stat
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# What an archive adds to the tensors themselves: names, shapes, alignment.
_OVERHEAD = 2**24
# Batch normalisation counts its training steps; evaluation does not use the count.
_COUNTER = ".num_batches_tracked"


def load_weights(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a safetensors file, or a torch file with weights_only=True, into the network.

    The file must hold the network's tensors, each in its shape, and nothing else; values in half
    or double precision are converted to the network's. The one exception are counters of
    training steps, which old files lack and evaluation does not use. The network says how large
    the file may be, and its header is compared with that before any tensor is read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no regular file; truncated, corrupt or too large; a pickle that asks for code;
            missing, unexpected, misshaped or non-finite tensors (they are listed).
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no weights at {path}: pass the path of a local file") from error
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is not a regular file: pass a safetensors or torch file")
    expected = network.state_dict()
    size = path.stat().st_size
    limit = 2 * sum(t.numel() * max(t.element_size(), 4) for t in expected.values()) + _OVERHEAD
    if size > limit:
        raise ValueError(
            f"{path} has {size} bytes, more than the {limit} that this network's weights can take"
        )
    with open(path, "rb") as file:
        start = file.read(9)
    # A safetensors file starts with the length of its header, 8 bytes, and the header's brace.
    state = _read_safetensors(path, expected) if start[8:] == b"{" else _read_torch(path, limit)
    _check_state(path, {k: tuple(v.shape) for k, v in state.items()}, expected)
    for name, value in state.items():
        kinds = value.is_floating_point(), expected[name].is_floating_point()
        if kinds[0] != kinds[1]:
            raise ValueError(f"{path}: {name} is {value.dtype}, expected {expected[name].dtype}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{path}: {name} holds values that are not finite")
    network.load_state_dict(expected | state, strict=True)


def _read_safetensors(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = list(file.keys())
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            _check_state(path, shapes, expected)
            return {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{path} is corrupt or truncated: {error}; fetch it again") from error


def _declared_size(path: Path) -> int:
    """Bytes that the members of a zip file say they hold."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path} is corrupt or truncated: {error}; fetch it again") from error


def _read_torch(path: Path, limit: int) -> dict[str, Tensor]:
    zipped = zipfile.is_zipfile(path)
    declared = _declared_size(path) if zipped else 0
    if declared > limit:
        raise ValueError(f"{path} declares {declared} bytes, more than the {limit} allowed")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is corrupt, or a pickle that asks for code, which is never run: "
            f"{str(error).splitlines()[0]:.200}. Where you trust it, convert it once with "
            "safetensors.torch.save_file(network.state_dict(), path)"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make torch's readers raise errors of every kind
        raise ValueError(
            f"{path} is corrupt, truncated or no file of weights: {str(error)[:200]}"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        found = list(state)[:5] if isinstance(state, dict) else type(state).__name__
        raise ValueError(
            f"{path} holds {found}, expected a dictionary of tensors: save network.state_dict()"
        )
    return dict(state)


def _check_state(
    path: Path, shapes: dict[str, tuple[int, ...]], expected: dict[str, Tensor]
) -> None:
    """Refuse tensors that are not the network's: missing, unexpected or of another shape."""
    missing = [k for k in expected if k not in shapes and not k.endswith(_COUNTER)]
    unexpected = [k for k in shapes if k not in expected]
    misshaped = [
        f"{k} {shape} instead of {tuple(expected[k].shape)}"
        for k, shape in shapes.items()
        if k in expected and shape != tuple(expected[k].shape)
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    faults = [f"{len(v)} {kind}: {_listed(v)}" for kind, v in kinds.items() if v]
    if faults:
        raise ValueError(
            f"{path} holds other tensors than this network: {'; '.join(faults)}. Save the "
            "network's own state_dict()"
        )


def _listed(names: list[str], most: int = 8) -> str:
    rest = len(names) - most
    return ", ".join(n[:120] for n in names[:most]) + (f" and {rest} more" if rest > 0 else "")
