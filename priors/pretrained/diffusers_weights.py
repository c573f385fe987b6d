"""The weights of a part of a diffusers folder: one file, or shards under an index."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .safe_files import read_json, regular_file
from .weights import read_weights

STEM = "diffusion_pytorch_model"
"""What diffusers calls the weights of its networks, autoencoders included."""


@dataclass(frozen=True)
class Weights:
    """Files of one part by name, and in which of them each tensor lies where an index says so."""

    name: str
    files: dict[str, Path]
    where: dict[str, str] | None = None

    def read(self, max_parameters: int) -> dict[str, Tensor]:
        """All tensors by name; from shards, exactly those that the index places there."""
        tensors: dict[str, Tensor] = {}
        left = max_parameters
        for shard, path in self.files.items():
            content = read_weights(path, max_parameters=left)
            for name, value in content.items():
                if not isinstance(value, Tensor):
                    raise ValueError(f"{shard}: {name!r:.80} is no tensor")
                left -= value.numel()
            self._check_shard(shard, content)
            tensors |= content
        return tensors

    def _check_shard(self, shard: str, content: dict[str, Any]) -> None:
        if self.where is None:
            return
        wrong = sorted({name for name, at in self.where.items() if at == shard} ^ set(content))
        if wrong:
            raise ValueError(
                f"{shard} and {self.name} disagree on {len(wrong)} tensors: {', '.join(wrong[:8])}"[
                    :400
                ]
            )


def find_weights(root: Path, at: str, stem: str = STEM) -> Weights:
    """The weights of the part in root/at ("" or "unet/"): safetensors first, else .bin.

    A .bin is a torch file, of which only tensors are read.
    """
    for suffix in (".safetensors", ".bin"):
        one, index = f"{at}{stem}{suffix}", f"{at}{stem}{suffix}.index.json"
        if os.path.lexists(root / one):
            return Weights(one, {one: regular_file(root, one)})
        if os.path.lexists(root / index):
            return _shards(root, at, index, suffix)
    found = sorted(p.name for p in (root / at).iterdir()) if (root / at).is_dir() else []
    others = [name for name in found if ".safetensors" in name or name.endswith(".bin")]
    if others:
        raise ValueError(f"expected {at}{stem}.safetensors, found {', '.join(others[:4])}"[:400])
    raise FileNotFoundError(f"{root.name} has no {at}{stem}.safetensors")


def _shards(root: Path, at: str, index: str, suffix: str) -> Weights:
    where = read_json(root, index).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise ValueError(f"{index} has no weight_map")
    shards = sorted(set(map(str, where.values())))
    for shard in shards:
        if "/" in shard or "\\" in shard or not shard.endswith(suffix):
            raise ValueError(f"{index}: {shard!r:.80} is not the name of a {suffix} file beside it")
    files = {shard: regular_file(root, at + shard) for shard in shards}
    return Weights(index, files, {str(k): str(v) for k, v in where.items()})
