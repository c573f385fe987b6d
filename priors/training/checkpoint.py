"""The state of a training run in one file, from which it goes on bit for bit."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

_FILE = "state.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Checkpoint:
    """Where a run keeps its weights, their average and the optimiser's moments.

    Args:
        folder: made where missing. The file in it is replaced whole, so that a run cut short
            leaves the state of an earlier step.
        settings: all that decides the run; a state of other settings is refused.
        every: steps between two states; the last step is always kept.

    Nothing in the file can run code.
    """

    def __init__(
        self, folder: str | os.PathLike[str], settings: dict[str, Any], every: int = 500
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1 step, got {every}")
        self.folder, self.every = Path(folder), every
        self.settings = json.dumps(settings, sort_keys=True)

    @property
    def exists(self) -> bool:
        return (self.folder / _FILE).exists()

    def due(self, step: int, steps: int) -> bool:
        return step % self.every == 0 or step == steps

    def save(
        self,
        network: nn.Module,
        average: dict[str, Tensor],
        optimizer: torch.optim.Optimizer,
        progress: dict[str, float],
    ) -> None:
        """Write the state; `progress` is what else the loop has to remember."""
        tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in average.items()}
        # Parameters that are frozen, or that no loss has used yet, have no moments.
        moved = [name for name, p in network.named_parameters() if optimizer.state.get(p)]
        for name in moved:
            state = optimizer.state[network.get_parameter(name)]
            for key in _MOMENTS:
                tensors[f"{key}.{name}"] = torch.as_tensor(state[key])
        metadata = {"settings": self.settings, "progress": json.dumps(progress)}
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"state.{os.getpid()}.tmp"
        try:
            save_file(
                {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()},
                temporary,
                metadata=metadata | {"moved": json.dumps(moved)},
            )
            with open(temporary, "rb") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, self.folder / _FILE)
        finally:
            temporary.unlink(missing_ok=True)

    def restore(
        self, network: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer
    ) -> dict[str, float]:
        """Put the state back in place and return `progress`.

        Raises:
            ValueError: a corrupt file, a run of other settings, or tensors that are not those of
                the network, listed.
        """
        path = self.folder / _FILE
        try:
            with safe_open(path, "pt") as handle:
                meta = handle.metadata() or {}
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            progress: dict[str, float] = json.loads(meta["progress"])
            theirs = json.loads(meta["settings"])
            moved = set(json.loads(meta["moved"]))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is corrupt; delete it to start again") from error
        difference = _difference(theirs, json.loads(self.settings))
        if difference:
            raise ValueError(
                f"{self.folder} holds a run of other settings: {difference}. Choose another "
                "folder, or delete that one to start again"
            )
        parameters = {k: p for k, p in network.named_parameters() if k in moved}
        expected = {f"network.{k}": v.shape for k, v in average.items()}
        expected |= {f"average.{k}": v.shape for k, v in average.items()}
        for name, parameter in parameters.items():
            shapes = (parameter.shape, parameter.shape, torch.Size())
            expected |= {f"{key}.{name}": s for key, s in zip(_MOMENTS, shapes, strict=True)}
        unfit = _unfit({k: v.shape for k, v in tensors.items()}, expected)
        if unfit:
            raise ValueError(
                f"{path} is not of this network: {unfit}. Choose another folder, or delete that "
                "one to start again"
            )
        network.load_state_dict({k: tensors[f"network.{k}"] for k in average})
        for name, value in average.items():
            value.copy_(tensors[f"average.{name}"])
        for name, parameter in parameters.items():
            state = {key: tensors[f"{key}.{name}"] for key in _MOMENTS}
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device)
                for key, value in state.items()
            }
        return progress


def _unfit(found: dict[str, torch.Size], expected: dict[str, torch.Size]) -> str:
    """The tensors that are missing, unexpected or of other shapes."""
    wrong = [f"missing {k}" for k in expected if k not in found]
    wrong += [f"unexpected {k}" for k in found if k not in expected]
    wrong += [
        f"{k} has shape {tuple(found[k])}, expected {tuple(s)}"
        for k, s in expected.items()
        if k in found and found[k] != s
    ]
    return ", ".join(wrong[:8]) + (f" and {len(wrong) - 8} more" if len(wrong) > 8 else "")


def _difference(theirs: Any, ours: Any) -> str:
    """The settings that differ, as 'name was a, is b'; one that is missing counts as None.

    Those that follow from others or are digests come last and by the name of their group alone.
    """
    there, here = _flat(theirs), _flat(ours)
    keys = sorted(k for k in there.keys() | here.keys() if there.get(k) != here.get(k))
    plain = [k for k in keys if not _derived(k, there.get(k), here.get(k))]
    parts = [f"{k} was {there.get(k)!r:.60}, is {here.get(k)!r:.60}" for k in plain[:4]]
    if len(plain) > 4:
        parts.append(f"and {len(plain) - 4} more")
    named = {k.partition(".")[0] for k in plain}
    groups = dict.fromkeys(k.partition(".")[0] for k in keys if k not in plain)
    return "; ".join(parts + [f"{group} differs" for group in groups if group not in named])


def _derived(key: str, *values: Any) -> bool:
    """Whether a setting is a private number, or a digest."""
    private = any(part.startswith("_") for part in key.split("."))
    return private or any(isinstance(v, str) and re.fullmatch("[0-9a-f]{64}", v) for v in values)


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
