"""Sparse matrices on disk: a cache that may be missing, full, foreign or broken at any time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from torch import Tensor

from .sparse import SparseMatrix

_VERSION = 1
_NAMES = ("pointers", "columns", "values")


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/inverse, else ~/.cache/inverse, else a folder for temporary files."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base and Path(base).is_absolute():
        return Path(base) / "inverse"
    with contextlib.suppress(RuntimeError):
        return Path.home() / ".cache" / "inverse"
    return Path(tempfile.gettempdir()) / "inverse"


def content_key(kind: str, sizes: tuple[int, ...], numbers: Tensor) -> str:
    """A name for the matrix that these numbers (float64) determine, new with every format."""
    digest = hashlib.sha256(f"{_VERSION} {kind} {sizes} ".encode())
    digest.update(numbers.contiguous().numpy().tobytes())
    return f"{kind}-{digest.hexdigest()[:32]}"


def _checksum(parts: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b()
    for name in _NAMES:
        digest.update(parts[name].numpy().data)
    return digest.hexdigest()


def load_matrix(folder: Path, key: str, shape: tuple[int, int]) -> SparseMatrix | None:
    """The stored matrix, or None if there is no intact one."""
    from safetensors import SafetensorError, safe_open

    path = folder / f"{key}.safetensors"
    try:
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            parts = {name: file.get_tensor(name) for name in _NAMES}
    except (OSError, SafetensorError, ValueError):
        return None
    if metadata.get("checksum") != _checksum(parts) or metadata.get("shape") != str(shape):
        return None
    return SparseMatrix(parts["pointers"], parts["columns"], parts["values"], shape)


def save_matrix(folder: Path, key: str, matrix: SparseMatrix) -> bool:
    """Store the matrix under its final name in one step; False, and nothing left, if it fails."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    parts = {name: getattr(matrix, name) for name in _NAMES}
    metadata = {"checksum": _checksum(parts), "shape": str(matrix.shape)}
    temporary: str | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=folder, suffix=".part")
        os.close(descriptor)
        save_file(parts, temporary, metadata=metadata)
        os.replace(temporary, folder / f"{key}.safetensors")
    except (OSError, SafetensorError):
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return False
    return True
