"""Learned likelihoods in files: a folder with learned.json and learned.safetensors."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from forward_models.classifiers.weights import load_weights
from priors.pretrained.safe_files import (
    publish,
    read_json,
    regular_file,
    sha256,
    tensor_shapes,
    write_json,
)

from .likelihoods.learned import LearnedLift
from .likelihoods.learned_networks import HTransform

INDEX, TENSORS = "learned.json", "learned.safetensors"
_KEYS = {"format", "networks", "sha256"}


def save_learned(lift: LearnedLift, folder: str | os.PathLike[str]) -> None:
    """Write what `inverse.learn` gave as a folder for `load_learned`.

    Raises TypeError for anything else.
    """
    from safetensors.torch import save_file

    if not isinstance(lift, LearnedLift):
        raise TypeError(f"lift must be a LearnedLift, got {type(lift).__name__}")
    state = {k: v.detach().cpu().contiguous() for k, v in lift.networks.state_dict().items()}
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".draft-") as name:
        draft = Path(name)
        save_file(state, draft / TENSORS)
        facts = {
            "format": 1, "networks": lift.networks.config, "sha256": sha256(draft / TENSORS)
        }  # fmt: skip
        write_json(draft / INDEX, facts)
        publish(draft, target, [TENSORS], INDEX)


def load_learned(folder: str | os.PathLike[str], device: torch.device | str = "cpu") -> LearnedLift:
    """Read a learned lift from a folder. Nothing in it is executed: JSON and safetensors.

    Raises:
        FileNotFoundError: no such files.
        ValueError: files that are damaged, of another format, or whose tensors are not all those
            of the networks that learned.json describes, and no others; they are listed.
    """
    root = Path(folder)
    facts = read_json(root, INDEX)
    if set(facts) != _KEYS or facts["format"] != 1 or not isinstance(facts["networks"], dict):
        raise ValueError(
            f"{root}: {INDEX} must hold format 1, networks and sha256, got {sorted(facts)}"
        )
    path = regular_file(root, TENSORS)
    if sha256(path) != facts["sha256"]:
        raise ValueError(f"{TENSORS} is not the file that {INDEX} recorded: its SHA-256 differs")
    # Built without memory first: the file, whose size is known, must hold what is described.
    with torch.device("meta"):
        described = {k: tuple(v.shape) for k, v in _built(root, facts["networks"]).items()}
    if described != tensor_shapes(path):
        raise ValueError(f"{root}: {TENSORS} holds other tensors than {INDEX} describes")
    with torch.random.fork_rng(devices=[]):
        network = HTransform(**facts["networks"])
    load_weights(network, path)
    return LearnedLift(network.to(device).eval().requires_grad_(False))


def _built(root: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The tensors of the described networks."""
    try:
        return HTransform(**settings).state_dict()
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{root}: {INDEX} describes no networks: {error}"[:400]) from error
