"""Simulated measurements of known truths, draws for each, and what is kept of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from forward_models import ForwardModel

from ..checkpoint import Checkpoint
from ..result import Samples
from .coverage import inside
from .quantities import Quantity, View, private
from .ranks import rank

SamplerFunction = Callable[[Tensor, int, int], Tensor | Samples]
"""(y (1, *measurement), n, seed) -> n draws of p(x | y), (n, *event), or Samples with weights."""

Progress = Callable[[int, int], None]
"""(simulations done, simulations in all)."""

VALUES, MOST = 2**20, 256
"""Values of draws, and measurements, of one block; two measurements at least."""


@dataclass(frozen=True)
class Experiment:
    """All that decides the simulations.

    Attributes:
        model: p(y | x0).
        truths: (n, *event).
        draw: measurements (P, *measurement), number of the block, progress within it (0 to 1)
            -> draws (P, L, *event) and their weights (P, L), or None.
        draws: L.
        quantities, views: what is kept of truth and draws.
    """

    model: ForwardModel
    truths: Tensor
    draw: Callable[[Tensor, int, Callable[[float], None]], tuple[Tensor, Tensor | None]]
    draws: int
    quantities: Mapping[str, Quantity]
    views: tuple[View, ...]
    seed: int

    def measurement(self, i: int) -> Tensor:
        """y ~ p(y | truth i), (1, *measurement), the same whatever n is."""
        return self.model.simulate(self.truths[i : i + 1], private(self.seed, f"y/{i}"))

    def run(self, store: Checkpoint | None, progress: Progress | None) -> dict[str, Tensor]:
        """Of every simulation, float64: see `_block`; blocks that a store holds are taken from it.

        Blocks have a fixed size, so that draws do not depend on where a run was interrupted.
        """
        n, size = len(self.truths), self.truths[0].numel() * self.draws
        step = max(2, min(MOST, VALUES // size))
        kept: list[dict[str, Tensor]] = []
        for block, start in enumerate(range(0, n, step)):
            rows = range(start, min(start + step, n))

            def inner(share: float, rows: range = rows) -> None:
                if progress is not None:  # 0.29 of 100 is 29, less rounding
                    progress(rows.start + int(share * len(rows) + 1e-6), n)

            state, done = (None, 0) if store is None else store.load(block)
            if state is None or not done:
                state = self._block(rows, block, inner)
                if store is not None:
                    store.save(block, state, 1, final=True)
            kept.append(state)
            inner(1.0)
        return {name: torch.cat([part[name] for part in kept]) for name in kept[0]}

    @torch.no_grad()
    def _block(
        self, rows: range, block: int, progress: Callable[[float], None]
    ) -> dict[str, Tensor]:
        """For P simulations, truth first: the quantities (P, T, 1 + L), weights (P, L); of each
        view's single entries the truth less the mean of the draws, and their variance, (P, J) each;
        the coverage of all its entries (P, levels); and `use`, see there."""
        y = torch.cat([self.measurement(i) for i in rows])
        drawn, weights = self.draw(y, block, progress)
        if not bool(drawn.isfinite().all()):
            bad = int((~drawn.isfinite().flatten(1).all(1)).nonzero()[0])
            raise FloatingPointError(
                f"the draws of simulation {rows[bad]} hold values that are not finite; take more "
                "steps, or another method"
            )
        equal = torch.full(drawn.shape[:2], 1 / self.draws, dtype=torch.float64)
        shares = equal if weights is None else weights.double().cpu()
        told: dict[str, list[Tensor]] = {}
        for p, i in enumerate(rows):
            x = torch.cat([self.truths[i : i + 1], drawn[p]])
            own = y[p : p + 1]
            values = [self._value(name, x, own, i) for name in self.quantities]
            one = {"quantities": torch.stack(values), "weights": shares[p]}
            for view in self.views:
                one |= self._seen(view, x, shares[p], i)
            one["use"] = self._use(x, own, drawn, shares, p)
            for name, tensor in one.items():
                told.setdefault(name, []).append(tensor)
        return {name: torch.stack(tensors) for name, tensors in told.items()}

    def _value(self, name: str, x: Tensor, y: Tensor, i: int) -> Tensor:
        value = self.quantities[name](x, y, i)
        if tuple(value.shape) != (len(x),) or not bool(value.isfinite().all()):
            raise ValueError(
                f"the quantity {name!r} must give one finite number for each of {len(x)} images, "
                f"got shape {tuple(value.shape)}"
                + ("" if bool(value.isfinite().all()) else " and values that are not finite")
            )
        return value.double().cpu()

    def _seen(self, view: View, x: Tensor, weights: Tensor, i: int) -> dict[str, Tensor]:
        v = view.of(x).double().cpu()
        jitter = torch.rand(
            v.shape[1:], generator=private(self.seed, f"{view.name}/{i}"), dtype=torch.float64
        )
        u = rank(v[:1], v[None, 1:], jitter[None], weights[None])
        single = v[:, view.columns.cpu()]
        mean = weights @ single[1:]
        spare = (1 - weights.square().sum()).clamp(min=1e-12)
        variance = weights @ (single[1:] - mean).square() / spare
        return {
            f"{view.name}/error": single[0] - mean,
            f"{view.name}/variance": variance,
            f"{view.name}/inside": inside(u)[0],
        }

    def _use(self, x: Tensor, y: Tensor, drawn: Tensor, weights: Tensor, p: int) -> Tensor:
        """How often y is likelier under the truth, and under draws for it, (2,), than under draws
        for the next measurement of the block: one half for draws that ignore y.

        NaN where there is no next one.
        """
        if len(drawn) < 2:
            return torch.full((2,), torch.nan, dtype=torch.float64)
        q = (p + 1) % len(drawn)
        mine, other = (self.model.log_likelihood(y, k).double().cpu() for k in (x, drawn[q]))
        above = (mine[:, None] > other).double() + 0.5 * (mine[:, None] == other)
        own = above @ weights[q]
        return torch.stack([own[0], weights[p] @ own[1:]])
