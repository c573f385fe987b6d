"""Pipelines on the Hugging Face hub, through huggingface_hub's own cache on this machine.

A hub id is an explicit request: what is not in the cache is downloaded, only JSON and weights.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .diffusers_weights import STEM, find_weights
from .latent_folder import AUTOENCODERS, NETWORKS
from .safe_files import read_json

_SUFFIXES = (".safetensors", ".bin")
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_CONFIGS = re.compile(
    r"(model_index|prior|config|scheduler_config|.*\.index)\.json|"
    r"[a-z0-9_]{1,40}/(config|scheduler_config|.*\.index)\.json"
)
_WEIGHTS = re.compile(
    r"(?P<part>[a-z0-9_]{1,40}/)?(diffusion_pytorch_model|model|pytorch_model)"
    r"(-\d{5}-of-\d{5})?\.(?P<suffix>safetensors|bin)"
)


def is_id(source: str) -> bool:
    """Whether a text reads as org/name."""
    return _ID.fullmatch(source) is not None and ".." not in source


def fetch(name: str, revision: str, max_parameters: int) -> Path:
    """The folder of a hub id: the cache's where it is complete, else downloaded.

    Raises:
        FileNotFoundError: not cached, and offline or unreachable; no such repository or revision.
        ValueError: the repository declares more than max_parameters can take.
    """
    cached = _cached(name, revision)
    if cached is not None:
        return cached
    from huggingface_hub import constants, snapshot_download

    if constants.is_offline_mode():
        raise FileNotFoundError(
            f"{name} at {revision} is not whole in the hub's cache, and HF_HUB_OFFLINE forbids to "
            "download it: unset HF_HUB_OFFLINE, or copy the folder here and pass its path"
        )
    with _asking(name, revision):
        listing = _listing(name, revision)
    files = wanted(listing)
    size = sum(files.values())
    if size > 4 * max_parameters + 2**26:
        raise ValueError(
            f"{name} has {size} bytes of weights, more than max_parameters = {max_parameters} "
            "at four bytes each; raise max_parameters if that is meant"
        )
    with _asking(name, revision):
        return Path(snapshot_download(name, revision=revision, allow_patterns=sorted(files)))


@contextmanager
def _asking(name: str, revision: str) -> Iterator[None]:
    """What the hub's client raises, as FileNotFoundError; its transports have their own errors."""
    from huggingface_hub import errors

    try:
        yield
    except (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.HFValidationError,
    ) as error:
        raise FileNotFoundError(
            f"no folder or file {name!r}, and the hub has no such repository at {revision!r:.80}"
        ) from error
    except Exception as error:
        raise FileNotFoundError(
            f"no folder or file {name!r}, and the hub cannot be reached to download it "
            f"({type(error).__name__}: {error!s:.120}): check the connection, or pass the path of "
            "a folder"
        ) from error


def wanted(sizes: dict[str, int]) -> dict[str, int]:
    """Of a repository's files, the JSON and weights of a pipeline, and their sizes.

    Of each part's weights those in safetensors, or .bin where it has no safetensors.
    """
    weights = {path: match for path in sizes if (match := _WEIGHTS.fullmatch(path))}
    safe = {match["part"] for match in weights.values() if match["suffix"] == "safetensors"}
    return {
        path: size
        for path, size in sizes.items()
        if _CONFIGS.fullmatch(path)
        or (
            path in weights
            and (weights[path]["suffix"] == "safetensors" or weights[path]["part"] not in safe)
        )
    }


def _listing(name: str, revision: str) -> dict[str, int]:
    """The files of a repository and their sizes, as the hub states them."""
    from huggingface_hub import HfApi

    info: Any = HfApi().model_info(name, revision=revision, files_metadata=True)
    return {file.rfilename: file.size or 0 for file in info.siblings or ()}


def _cached(name: str, revision: str) -> Path | None:
    """The snapshot in the cache, where it has an index and the files of each part it names."""
    from huggingface_hub import errors, snapshot_download

    try:
        root = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError, ValueError, OSError):
        return None
    return root if _whole(root) else None


def _whole(root: Path) -> bool:
    """Whether no file is missing; what else is wrong with them, their reader says."""
    try:
        index = read_json(root, "model_index.json")
        for name in (*NETWORKS, *AUTOENCODERS, "scheduler"):
            if index.get(name) in (None, [None, None]):
                continue
            # Pipelines of one network may keep all in one folder.
            at = f"{name}/" if (root / name).is_dir() else ""
            config = "scheduler_config.json" if name == "scheduler" else "config.json"
            if not (root / at / config).exists():
                return False
            if name == "scheduler":
                continue
            stems = [
                f"{STEM}{suffix}{more}" for suffix in _SUFFIXES for more in ("", ".index.json")
            ]
            if not any(os.path.lexists(root / at / stem) for stem in stems):
                return False
            find_weights(root, at)
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return True
