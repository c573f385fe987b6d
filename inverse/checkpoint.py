"""The state of an interrupted run: what its sampler or particle method goes on from, as noise is a
function of (seed, sample, step) and needs no saving."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .result import write_bytes

DIGEST = "sha256:"

PERIOD = 10.0
"""Seconds between two writes of a running batch."""


def fingerprint(*parts: Any) -> str:
    """A digest of everything that decides a run's samples."""
    digest = hashlib.sha256()

    def feed(part: Any) -> None:
        if isinstance(part, Tensor):
            digest.update(str((part.dtype, tuple(part.shape))).encode())
            # By bytes: numpy has no bfloat16.
            flat = part.detach().cpu().resolve_conj().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().tobytes())
        elif isinstance(part, list | tuple):
            digest.update(f"[{len(part)}".encode())
            for item in part:
                feed(item)
        elif isinstance(part, str | int | float | torch.dtype) or part is None:
            digest.update(f"{type(part).__name__}:{part};".encode())
        elif hasattr(part, "settings"):
            feed(part.settings())
        else:
            digest.update(type(part).__qualname__.encode())

    feed(list(parts))
    return digest.hexdigest()


class Checkpoint:
    """One folder, one file per batch of samples: its state and the number of steps done.

    Files are written whole under a temporary name and then renamed. A state of another run is
    refused, never overwritten: the settings tell runs apart by name, the probe (what the run's
    denoiser makes of fixed noise, compared to three digits) other priors and operators.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], probe: Tensor) -> None:
        self.folder, self.probe = folder, probe.detach().cpu()
        self.settings = {name: _told(value) for name, value in settings.items()}
        self._last = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"batch{number:05d}.safetensors"

    def load(self, number: int) -> tuple[dict[str, Tensor] | None, int]:
        """(state, steps done) of a batch, or (None, 0)."""
        from safetensors import safe_open

        path = self._path(number)
        if not path.exists():
            return None, 0
        try:
            with safe_open(path, "pt") as handle:
                meta = handle.metadata()
                # Copies: a file's tensors start anywhere in memory, and the last bit of a product
                # depends on where.
                state = {name: handle.get_tensor(name).clone() for name in handle.keys()}  # noqa: SIM118
            checksum = _checksum(state)
            probe = state.pop("probe")
        except Exception as error:
            raise ValueError(f"{path} is corrupt ({error}); delete it to start again") from error
        if meta["sha256"] != checksum:
            raise ValueError(f"{path} is corrupt: its checksum differs; delete it to start again")
        differing = _differing(json.loads(meta.get("settings", "{}")), self.settings)
        if differing:
            raise ValueError(
                f"{self.folder} holds another run: {differing}; choose another folder or delete it"
            )
        spread = 1e-3 * float(self.probe.abs().max())
        if not torch.allclose(probe, self.probe, rtol=0, atol=spread):
            raise ValueError(
                f"{self.folder} holds another run: its prior, forward model or method denoise "
                "differently; choose another folder or delete it"
            )
        return state, int(meta["steps"])

    def save(
        self, number: int, state: Mapping[str, Tensor], steps: int, final: bool = False
    ) -> None:
        """Keep what a run needs after `steps` steps; at most every PERIOD seconds unless final."""
        from safetensors.torch import save

        if not final and time.monotonic() - self._last < PERIOD:
            return
        self._last = time.monotonic()
        # Copies: tensors of a state may be one and the same, which the format refuses.
        held = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
        held["probe"] = self.probe
        meta = {
            "settings": json.dumps(self.settings),
            "steps": str(steps),
            "sha256": _checksum(held),
        }
        write_bytes(self._path(number), save(held, meta))


def _told(value: Any) -> str:
    """A setting in words, or the digest of one that is long."""
    if isinstance(value, str | int | float | torch.dtype) or value is None:
        return str(value)
    return f"{DIGEST}{fingerprint(value)}"


def _differing(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Which settings differ, in words; empty if none do."""
    said = []
    for name in sorted(there.keys() | here.keys(), key=[*here, *there].index):
        old, new = there.get(name, "not set"), here.get(name, "not set")
        if old != new:
            long = DIGEST in (old[: len(DIGEST)], new[: len(DIGEST)])
            said.append(f"{name} differs" if long else f"{name} is {old} there, {new} here")
    return ", ".join(said)


def _checksum(state: Mapping[str, Tensor]) -> str:
    return fingerprint([[name, value] for name, value in sorted(state.items())])
