"""Noise drawn per sample: value(sample i, step k) depends on (seed, i, k, shape) and nothing else.

So sample i is the same drawn alone, in a batch, on another worker or after a restart, and no
random state has to be saved.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Sequence

import torch
from torch import Tensor


class NoiseStream:
    """Standard normal noise for the samples `indices` of the run `seed`.

    Drawn on the CPU in float32, then moved: the same values on every device and in every dtype.
    Small events draw the noise of many steps at once, since a generator costs more than they do.
    """

    def __init__(
        self,
        seed: int,
        indices: Sequence[int],
        event_shape: tuple[int, ...],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.seed, self.indices = check_seed(seed), tuple(indices)
        self.event_shape, self.dtype, self.device = tuple(event_shape), dtype, device
        self._block_steps = max(1, 1024 // max(1, math.prod(self.event_shape)))
        self._block: tuple[int, Tensor] | None = None
        self._others: dict[tuple[int, tuple[int, ...]], NoiseStream] = {}

    def beside(self, purpose: int, shape: tuple[int, ...]) -> NoiseStream:
        """Noise of another shape for the same samples, apart from this; purpose >= 1 tells which.

        A stream is kept for the run, so that its blocks are drawn once.
        """
        key = (purpose, tuple(shape))
        if key not in self._others:
            rows = [(purpose << 40) + i for i in self.indices]
            self._others[key] = NoiseStream(self.seed, rows, key[1], self.dtype, self.device)
        return self._others[key]

    def normal(self, step: int) -> Tensor:
        """eps (B, *event) of step `step`; step 0 is the start."""
        number, offset = divmod(step, self._block_steps)
        if self._block is None or self._block[0] != number:
            self._block = (number, self._draw(number))
        return self._block[1][:, offset].to(self.device, self.dtype)

    def _draw(self, number: int) -> Tensor:
        block = torch.empty(len(self.indices), self._block_steps, *self.event_shape)
        generator = torch.Generator()
        for row, index in zip(block, self.indices, strict=True):
            # A hash, not a sum: streams of neighbouring seeds and samples never meet.
            digest = hashlib.blake2b(f"{self.seed}/{index}/{number}".encode(), digest_size=8)
            generator.manual_seed(int.from_bytes(digest.digest()) >> 1)
            torch.randn(row.shape, generator=generator, out=row)
        return block


def uniform(seed: int, count: int, step: int) -> Tensor:
    """(count,) uniform in [0, 1), of step `step`, apart from all noise streams; float64."""
    digest = hashlib.blake2b(f"{check_seed(seed)}/uniform/{step}".encode(), digest_size=8)
    generator = torch.Generator().manual_seed(int.from_bytes(digest.digest()) >> 1)
    return torch.rand(count, generator=generator, dtype=torch.float64)


def check_seed(seed: int | None) -> int:
    """The seed, or a fresh one from the operating system for None; 0 is a seed like any other."""
    if seed is None:
        return secrets.randbits(31)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be an integer in [0, 2^63) or None, got {seed!r}")
    return seed
