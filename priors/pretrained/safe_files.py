"""Files of unknown origin read within limits, and folders rewritten so that a cut is noticed.

JSON and safetensors only: nothing that is read here can run code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_JSON_LIMIT = 2**20
_HEADER_LIMIT = 100 * 2**20


def regular_file(root: Path, part: str) -> Path:
    """root/part, refused unless it is a regular file that lies in root.

    In huggingface_hub's cache a snapshot's files are links to the blobs of its own repository,
    models--org--name/snapshots/revision/part -> models--org--name/blobs/hash: these are followed.
    """
    try:
        real = (root / part).resolve(strict=True)
        mode = real.stat().st_mode
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{root.name} has no {part}") from error
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{part} cannot be read: {error}") from error
    base = root.resolve()
    allowed = [base]
    if base.parent.name == "snapshots" and base.parent.parent.name.startswith("models--"):
        allowed.append(base.parent.parent / "blobs")
    if not any(real.is_relative_to(place) for place in allowed):
        raise ValueError(
            f"{part} is a link that leaves the folder {root.name}: not read. Copy the folder with "
            "its links followed (cp -rL)"
        )
    if not stat.S_ISREG(mode):
        raise ValueError(f"{part} is not a regular file")
    return real


def read_json(root: Path, part: str) -> dict[str, Any]:
    """The JSON object in root/part: no key twice, no code asked for."""
    with open(regular_file(root, part), "rb") as file:
        text = file.read(_JSON_LIMIT + 1)
    if len(text) > _JSON_LIMIT:
        raise ValueError(f"{part} is larger than {_JSON_LIMIT} bytes")
    values = _parse(text, part)
    if "auto_map" in values:
        raise ValueError(f"{part} asks for code of its own (auto_map): never run")
    return values


def _parse(text: bytes, part: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            raise ValueError("a key is given twice")
        return values

    try:
        values = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{part} is corrupt, its JSON cannot be read: {error}"[:300]) from error
    if not isinstance(values, dict):
        raise ValueError(f"{part} must hold a JSON object, got {type(values).__name__}")
    return values


def plain_file(path: Path) -> None:
    """Refuse what is missing or not a regular file, before it is opened."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no file {path!s:.200}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name:.80} cannot be read: {error}"[:300]) from error
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path.name} is not a regular file")


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The tensors that a safetensors file declares; none is read."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, _HEADER_LIMIT):
            raise ValueError(
                f"{path.name} is corrupt or no safetensors file: {size} bytes cannot hold a "
                f"header of {length}"
            )
        header = _parse(file.read(length), path.name)
    header.pop("__metadata__", None)
    shapes = {}
    for name, entry in header.items():
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"{path.name} is corrupt: no shape for {name!r:.80}")
        shapes[name] = tuple(shape)
    return shapes


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def publish(draft: Path, target: Path, parts: Iterable[str], index: str) -> None:
    """Move files of draft into target, over earlier ones; the file index is what readers need.

    The earlier index goes before any other file changes and the new one comes after all of them,
    so a folder in which the moves were cut short has none, and files of two saves never load
    together.
    """
    parts = tuple(parts)
    for part in (*parts, index):
        with open(draft / part, "rb+") as file:
            os.fsync(file.fileno())
    folders = {(target / part).parent for part in parts} | {target}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    (target / index).unlink(missing_ok=True)
    _sync(target)
    for part in parts:
        os.replace(draft / part, target / part)
    for folder in folders:
        _sync(folder)
    os.replace(draft / index, target / index)
    _sync(target)


def _sync(folder: Path) -> None:
    """Wait until the disk holds the folder's names, on systems that can be asked to."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
