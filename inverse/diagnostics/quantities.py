"""What is ranked: functions of x0 and y, each of which sees other faults than the rest.

- log p(y | x0) sees ignored data and wrong widths of what is measured, from few simulations;
- log p(x0) + log p(y | x0), where the prior has a density, what the prior knows;
- single values and projections see shifts, and little else;
- `spread`, the distance from the middle of truth and draws together, sees widths;
- the distance to a reference that depends on y (TARP) sees faults of any kind, of any size late.

A function that the truth and the draws enter alike keeps them exchangeable, so that each may look
at all of them together.

Papers: Modrak et al. 2023, Simulation-Based Calibration Checking for Bayesian Computation: The
Choice of Test Quantities Shapes Sensitivity, https://arxiv.org/abs/2211.02383; Lemos et al. 2023,
Sampling-Based Accuracy Testing of Posterior Estimators for General Inference,
https://arxiv.org/abs/2302.03026
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from forward_models import ForwardModel, LinearGaussian, LinearOperator, Operator
from priors import Prior

Quantity = Callable[[Tensor, Tensor, int], Tensor]
"""(x0 (B, *event), y (1, *measurement), number of the simulation) -> (B,); the rows of x0 are the
truth and the draws, and enter alike."""

ENTRIES = 32
"""Most entries of a view that are looked at one by one."""
TESTED = 4
"""Most values and projections that are ranked on their own."""
AWAY = 0.5
"""Standard deviation of the noise of a reference of TARP, in those of one value of the prior."""
OPEN = 0.1
"""Part of a value's deviation that y must leave open, or it is not looked at as unmeasured."""
PROBES = 256
"""White images that tell which part that is."""


@dataclass(frozen=True)
class View:
    """Numbers seen of an image, (B, *event) -> (B, M), and which of them are looked at singly.

    Attributes:
        words: what they are, as a verdict says it.
        columns: (J,) places among the M, J <= ENTRIES; none of them constant under the prior.
        labels: of these.
    """

    name: str
    words: str
    of: Callable[[Tensor], Tensor]
    columns: Tensor
    labels: tuple[str, ...]


def views(prior: Prior, model: ForwardModel, pool: Tensor, seed: int) -> tuple[View, ...]:
    """What to look at: values of x0, random projections, what is measured, what is left open.

    What is measured is f(x0); what a linear-Gaussian measurement leaves open is

        x0 - K A x0,    K = c A^T (c A A^T + S)^-1,

    with c the prior's variance of one value: nothing of the directions that A sees well against
    the noise S, all of those that it does not see. Values of which less than a tenth stays open,
    if the image is white, are not looked at.

    Args:
        pool: draws of the prior, (P, *event).
    """
    found = [_view("values", "single values", _flat, pool, seed)]
    size = pool[0].numel()
    if size > 1:
        vectors = torch.randn(
            min(8, size), size, generator=private(seed, "projections"), dtype=torch.float64
        )
        unit = (vectors / vectors.norm(dim=1, keepdim=True)).to(pool)
        found.append(_view("projections", "random projections", lambda x: _flat(x) @ unit.T, pool,
                           seed))  # fmt: skip
    operator = getattr(model, "operator", None)
    if isinstance(operator, Operator):

        def image(x: Tensor) -> Tensor:
            z = operator.apply(x)
            measured = operator.measured
            return _flat(z if measured is None else torch.where(measured.to(z.device), z, 0))

        found.append(_view("measured", "what is measured", image, pool, seed))
    if isinstance(model, LinearGaussian):

        def left(x: Tensor) -> Tensor:
            return _flat(x - fitted(prior, model, model.operator.apply(x)))

        # A seen value leaves its noise there, whose width says nothing of what is not measured.
        # White images tell which are seen: truths that did would be chosen by what they are.
        white = torch.randn(
            PROBES, *pool.shape[1:], generator=private(seed, "white"), dtype=pool.dtype
        ).to(pool.device)
        seen = _deviation(left(white)) < OPEN * _deviation(white)
        found.append(_view("unmeasured", "what is not measured", left, pool, seed, ~seen))
    return tuple(view for view in found if len(view.columns))


def fitted(prior: Prior, model: LinearGaussian, y: Tensor) -> Tensor:
    """K y of `views`, (B, *event): what white images of the prior's scale would be, given y."""
    c = prior.scale**2
    A = model.operator
    assert isinstance(A, LinearOperator)
    return c * A.adjoint(A.solve(y, c, model.noise_variance))


def quantities(
    prior: Prior, model: ForwardModel, pool: Tensor, seen: Iterable[View], seed: int
) -> dict[str, Quantity]:
    """The test quantities of a problem by name, log p(y | x0) first."""
    found: dict[str, Quantity] = {"log p(y|x)": lambda x, y, i: model.log_likelihood(y, x)}
    density = log_density(prior, pool)
    if density is not None:
        found["log p(x|y)"] = lambda x, y, i: density(x) + model.log_likelihood(y, x)
    by_name = {view.name: view for view in seen}
    widths = [name for name in ("measured", "unmeasured") if name in by_name]
    for name in widths if "unmeasured" in widths else [*widths, "values"]:
        if name in by_name:
            found[f"spread, {name}"] = spread(by_name[name])
    for name in ("values", "projections"):
        if name in by_name:
            view = by_name[name]
            singles = zip(view.labels[:TESTED], view.columns.tolist(), strict=False)
            found |= {label: _single(view, k) for label, k in singles}
    found["distance to a reference"] = distance(prior, model, pool, seed)
    return found


def log_density(prior: Prior, pool: Tensor) -> Callable[[Tensor], Tensor] | None:
    """x0 -> log p(x0) where the prior has one without noise, else None."""
    own = getattr(prior, "log_density", None)
    if own is None or tuple(pool.shape[1:]) != tuple(prior.event_shape):
        return None
    try:
        own(pool[:1])
    except ValueError:  # a singular law has none
        return None
    return lambda x: own(x)


def _single(view: View, column: int) -> Quantity:
    return lambda x, y, i: view.of(x)[:, column]


def spread(view: View) -> Quantity:
    """The mean over entries of ((v - middle) / deviation)^2, both of truth and draws together.

    Too narrow draws have the truth outside, too wide ones within.
    """

    def function(x: Tensor, y: Tensor, i: int) -> Tensor:
        v = view.of(x)[:, view.columns].double()
        apart = (v - v.mean(0)).square()
        return (apart / apart.mean(0).clamp(min=1e-300)).mean(1)

    return function


def distance(prior: Prior, model: ForwardModel, pool: Tensor, seed: int) -> Quantity:
    """||x0 - r(y)|| for a random reference r near what y says of x0.

    A reference that does not depend on y cannot see draws that ignore y. Of linear-Gaussian models
    it is K y of `views` plus noise; of others, of which no inverse is known, the one draw of the
    prior in `pool` under which y is likeliest, plus noise, the simulation's own truth left out.
    """

    def function(x: Tensor, y: Tensor, i: int) -> Tensor:
        if isinstance(model, LinearGaussian):
            near = fitted(prior, model, y)
        else:
            fit = model.log_likelihood(y, pool)
            if i < len(pool):
                fit[i] = -torch.inf
            near = pool[fit.argmax()][None]
        # The deviation of the images at hand, which a prior of latents does not state.
        noise = torch.randn(near.shape, generator=private(seed, f"reference/{i}"), dtype=x.dtype)
        away = AWAY * pool.std(0).square().mean().sqrt()
        return (x - near - away * noise.to(x)).flatten(1).norm(dim=1)

    return function


def private(seed: int, purpose: str) -> torch.Generator:
    """A generator for one purpose of a run, apart from all others."""
    digest = hashlib.blake2b(f"calibration/{seed}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)


def _deviation(x: Tensor) -> Tensor:
    """Of each value of images, (N,)."""
    return _flat(x).double().std(0)


def _view(
    name: str,
    words: str,
    of: Callable[[Tensor], Tensor],
    pool: Tensor,
    seed: int,
    among: Tensor | None = None,
) -> View:
    """The view of entries that vary under the prior, of those `among` (N,) bool."""
    v = of(pool)
    # Far less than what is seen elsewhere is rounding, or what A fixes entirely.
    varying = _deviation(v) > 1e-6 * _deviation(pool).max()
    varies = (varying if among is None else varying & among).nonzero().flatten()
    if name != "projections" and len(varies) > ENTRIES:
        order = torch.randperm(len(varies), generator=private(seed, name))[:ENTRIES]
        varies = varies[order.to(varies.device)].sort().values
    shape = tuple(pool.shape[1:]) if name == "values" else (v.shape[1],)
    kind = {"values": "value", "projections": "projection"}.get(name, name)
    labels = tuple(f"{kind} [{_place(int(k), shape)}]" for k in varies)
    return View(name, words, of, varies, labels)


def _place(k: int, shape: tuple[int, ...]) -> str:
    return ", ".join(str(int(i)) for i in torch.unravel_index(torch.tensor(k), shape))


def _flat(x: Tensor) -> Tensor:
    flat = x.reshape(len(x), -1)
    return torch.view_as_real(flat).reshape(len(x), -1) if flat.is_complex() else flat
