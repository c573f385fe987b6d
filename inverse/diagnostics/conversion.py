"""How well p(y | x0) is turned into p_sigma(y | x): approximations beside the exact one.

    p_sigma(y | x) = p(y) p_sigma(x | y) / p_sigma(x),
    sigma^2 grad log p_sigma(y | x) = E[x0 | x, y] - E[x0 | x],

which a prior that can be conditioned in closed form has without error. An approximation with
shift g and log density log p~ is judged at each noise level by

    (E |g - g*|^2 / E |g*|^2)^(1/2)        relative error of the score,
    E |log p~ - log p|                     error of the log likelihood, nats,

over the posterior's path x ~ p_sigma(x | y), where a good sampler is, and the prior's x ~ p_sigma,
where one that ignores y is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, get_args

import torch
from torch import Tensor

from forward_models import ForwardModel
from priors import Prior

from ..checks import positive, whole
from ..lift import Lift
from ..posterior import Posterior, condition
from .estimate import Estimate, axes_of, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Path = Literal["posterior", "prior"]
PATHS: tuple[Path, ...] = ("posterior", "prior")
Figure = Literal["score", "log"]
WORDS = {"score": "relative error of the score", "log": "error of the log likelihood, nats"}


class Known(Protocol):
    """A prior in closed form: Gaussian, Mixture, Empirical."""

    def condition(self, model: Any, y: Tensor) -> Prior: ...

    def log_evidence(self, model: Any, y: Tensor) -> Tensor: ...

    def log_density(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor: ...

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Error:
    """Of one approximation at one noise level.

    Attributes:
        lift: its name. path: where, see the module. sigma: the noise level, data units.
        score: relative error of the score. log: error of the log likelihood, nats.
        reason: why there are no figures, where the approximation was refused; else "".

    Errors of both are standard errors over the draws of x.
    """

    lift: str
    path: Path
    sigma: float
    score: Estimate
    log: Estimate
    reason: str = ""


@dataclass(frozen=True)
class Conversion:
    """Errors of several approximations at several noise levels, on both paths."""

    errors: tuple[Error, ...]

    def of(self, lift: str, path: Path) -> tuple[Error, ...]:
        """Those of one approximation on one path, levels in the order given."""
        if path not in PATHS:
            raise ValueError(f"path must be one of {PATHS}, got {path!r}")
        found = tuple(e for e in self.errors if (e.lift, e.path) == (lift, path))
        if not found:
            known = ", ".join(dict.fromkeys(e.lift for e in self.errors))
            raise ValueError(f"no errors of {lift!r} on the path {path!r}; known lifts: {known}")
        return found

    def __str__(self) -> str:
        """Errors of score and log likelihood, a line a lift and path, a column a noise level."""
        names = list(dict.fromkeys(e.lift for e in self.errors))
        wide = max(len("noise level"), *map(len, names))
        lines = []
        for figure in get_args(Figure):
            for path in PATHS:
                levels = [e.sigma for e in self.of(names[0], path)]
                lines.append(f"{WORDS[figure]}, at draws of the {path}'s path")
                lines.append(f"{'noise level':<{wide}}" + "".join(f"{s:>19.3g}" for s in levels))
                for name in names:
                    row = (
                        "refused" if e.reason else _short(getattr(e, figure))
                        for e in self.of(name, path)
                    )  # fmt: skip
                    lines.append(f"{name:<{wide}}" + "".join(f"{one:>19}" for one in row))
        reasons = {e.lift: e.reason for e in self.errors if e.reason}
        return "\n".join([*lines, *(f"{name}: {reason}" for name, reason in reasons.items())])

    def plot(
        self,
        to: Axes | str | os.PathLike[str] | None = None,
        *,
        figure: Figure = "score",
        path: Path = "posterior",
    ) -> Axes:
        """One figure by noise level, a line a lift; on axes, or into a picture at a path."""
        if figure not in get_args(Figure):
            raise ValueError(f"figure must be one of {get_args(Figure)}, got {figure!r}")
        axes = axes_of(to, (5.5, 3.6))
        for name in dict.fromkeys(e.lift for e in self.errors):
            mine = self.of(name, path)
            axes.errorbar(
                [e.sigma for e in mine], [getattr(e, figure).value for e in mine],
                [getattr(e, figure).error for e in mine], fmt="o-", ms=3, lw=1, label=name,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=0.01)
        drawn = [getattr(e, figure).value for e in self.errors if e.path == path]
        largest = max((v for v in drawn if math.isfinite(v)), default=0.0)
        axes.set_ylim(0, max(1.5 * largest, 0.01))
        axes.set_xlabel("noise level", fontsize=9)
        axes.set_ylabel(WORDS[figure], fontsize=9)
        axes.set_title(f"at draws of the {path}'s path", fontsize=9)
        axes.legend(fontsize=6, frameon=False)
        return written(axes, to)


@torch.no_grad()
def conversion_errors(
    prior: Prior,
    model: ForwardModel,
    y: Tensor,
    lifts: Mapping[str, Lift],
    sigmas: Sequence[float] | Tensor,
    *,
    draws: int = 256,
    seed: int = 0,
) -> Conversion:
    """Errors of approximate likelihoods against the exact one, at each noise level.

    Args:
        prior: Gaussian or Mixture, under a LinearGaussian model, or Empirical, under any.
        model, y: the forward model and one measurement, (*measurement) or (1, *measurement).
        lifts: approximations by name, each a function of (model, y).
        sigmas: noise levels, data units, > 0.
        draws: states x on each path and level; the same ones for all lifts.
        seed: of these.

    Costs what the lifts cost. Differences of densities lose digits where sigma is far above the
    prior's scale: give y and the prior in float64.

    Raises:
        TypeError: a prior that cannot be conditioned in closed form, or no function as lift.
        ValueError: no lifts or levels, or y of several samples.
    """
    if not all(hasattr(prior, name) for name in ("condition", "log_evidence", "log_density")):
        raise TypeError(
            f"{type(prior).__name__} has no exact posterior to compare with; give a Gaussian, a "
            "Mixture or an Empirical prior, or ask the martingale test, which needs none"
        )
    if not isinstance(lifts, Mapping):
        raise TypeError(f"lifts must be a mapping, name -> lift, got {type(lifts).__name__}")
    if not isinstance(sigmas, Sequence | Tensor):
        raise TypeError(f"sigmas must be a sequence of levels, got {type(sigmas).__name__}")
    if not lifts or not len(sigmas):
        raise ValueError("give at least one lift and one noise level")
    whole(draws, "draws", least=2)
    known = cast(Known, prior)
    posteriors = {name: condition(prior, model, y, lift=lift) for name, lift in lifts.items()}
    ((checked, one),) = next(iter(posteriors.values())).factors
    if one.shape[0] > 1:
        raise ValueError(f"y must be one measurement, got {one.shape[0]}")
    truth = known.condition(checked, one)
    evidence = known.log_evidence(checked, one)
    source = torch.Generator().manual_seed(seed)
    found = []
    for path in PATHS:
        law = cast(Known, truth if path == "posterior" else prior)
        for sigma in sigmas:
            level = positive(float(sigma), "sigma")
            x0 = law.sample(draws, source)
            eps = torch.randn(x0.shape, generator=source, dtype=torch.float64).to(x0)
            x = x0 + level * eps
            shift = truth.denoise(x, level) - prior.denoise(x, level)
            log_p = cast(Known, truth).log_density(x, level) - known.log_density(x, level)
            for name, posterior in posteriors.items():
                found.append(
                    _error(name, path, level, posterior, x, shift, log_p + evidence.to(log_p))
                )
    return Conversion(tuple(found))


def _error(
    name: str, path: Path, sigma: float, posterior: Posterior, x: Tensor, shift: Tensor,
    log_p: Tensor,
) -> Error:  # fmt: skip
    try:
        _, guess, value = posterior.twisted(x, sigma)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        nothing = Estimate(math.nan, math.nan)
        return Error(name, path, sigma, nothing, nothing, f"{type(error).__name__}: {error}")
    n = len(x)
    wrong = (guess - shift).double().reshape(n, -1).square().sum(1)
    true = shift.double().reshape(n, -1).square().sum(1)
    ratio = wrong.mean() / true.mean()
    root = ratio.sqrt()
    spread = (wrong - ratio * true).std() / true.mean() / math.sqrt(n)
    apart = (value - log_p).double().abs()
    score = Estimate(float(root), float(spread / (2 * root)) if float(root) > 0 else 0.0)
    log = Estimate(float(apart.mean()), float(apart.std()) / math.sqrt(n))
    return Error(name, path, sigma, score, log)


def _short(estimate: Estimate) -> str:
    return f"{estimate.value:.2g} ± {estimate.error:.1g}"
