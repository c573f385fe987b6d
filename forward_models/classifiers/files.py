"""Classifiers in files: a folder with config.json and model.safetensors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from .classifier import Classifier, NoisyClassifier, as_model
from .network import ConvClassifier

_BUNDLED = Path(__file__).parent / "bundled"
_FORMAT = 1


def bundled_classifiers() -> list[str]:
    """Names that `load_classifier` knows without a path."""
    return sorted(p.parent.name for p in _BUNDLED.glob("*/config.json"))


def save_classifier(model: Classifier | NoisyClassifier, folder: str | Path) -> None:
    """Write config.json and model.safetensors of a `ConvClassifier` model into the folder.

    Raises TypeError for any other network: its code could not be stored.
    """
    from safetensors.torch import save

    if not isinstance(model.network, ConvClassifier):
        raise TypeError(f"only a ConvClassifier can be saved, got {type(model.network).__name__}")
    state = {k: v.detach().cpu().contiguous() for k, v in model.network.state_dict().items()}
    weights = save(state)
    config = {
        "format": _FORMAT,
        "network": model.network.config,
        "data_range": list(model.units.data_range),
        "network_range": list(model.units.network_range),
        "scale": getattr(model, "scale", None),
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    (target / "model.safetensors").write_bytes(weights)
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_classifier(folder: str | Path) -> Classifier | NoisyClassifier:
    """Read a classifier from a folder, or a bundled one by name, in eval mode on the CPU.

    Nothing is executed: the weights are safetensors with a checksum, the configuration JSON with
    exactly the known keys.

    Raises:
        ValueError: an unknown name (the bundled ones are listed), or files that are damaged or of
            another format.
    """
    from safetensors.torch import load

    path = Path(folder)
    if not (path / "config.json").is_file() and path.name == str(folder):
        path = _BUNDLED / path.name
    if not (path / "config.json").is_file():
        raise ValueError(
            f"no classifier {str(folder)!r}: neither a folder with config.json nor one of the "
            f"bundled ones ({', '.join(bundled_classifiers()) or 'none'})"
        )
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        weights = (path / "model.safetensors").read_bytes()
        if not isinstance(config, dict) or config.get("format") != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT}")
        expected = {"format", "network", "data_range", "network_range", "scale", "sha256"}
        if set(config) != expected:
            raise ValueError(f"its keys are {sorted(config)}, expected {sorted(expected)}")
        found = hashlib.sha256(weights).hexdigest()
        if found != config["sha256"]:
            raise ValueError(f"model.safetensors has sha256 {found}, expected {config['sha256']}")
        # Initial weights, soon replaced, must not advance the caller's random numbers.
        with torch.random.fork_rng(devices=[]):
            network = ConvClassifier(**config["network"])
        network.load_state_dict(load(weights), strict=True)
        low_high = tuple(config["data_range"]), tuple(config["network_range"])
        model = as_model(network.eval(), *low_high, config["scale"] or 0.5)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(f"cannot load the classifier in {path}: {error}") from error
    return model
