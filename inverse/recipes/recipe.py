"""What a method is: a name, what it asks for, what it promises, and a short recipe of parts."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from forward_models import TimeDependent
from priors import Prior
from priors.words import did_you_mean

from ..checks import whole
from ..particles import ParticleMethod
from ..posterior import Posterior
from ..samplers import Sampler
from ..variational import VariationalMethod
from .measured import MEASURED, PROBLEMS, UNMEASURED

Family = Literal["exact", "guidance", "splitting", "particles", "variational"]
Asks = Literal["closed form", "every noise level", "SVD", "adjoint", "gradient", "black box"]


@dataclass(frozen=True)
class Recipe:
    """What a method runs.

    Attributes:
        prior: what is walked: a posterior under the method's lift, or a prior.
        sampler: the sampler or particle method that walks it, or what optimises in its place; None
            for exact draws.
    """

    prior: Prior
    sampler: Sampler | ParticleMethod | VariationalMethod | None

    @property
    def network_calls(self) -> int | None:
        """Of one run, for each sample: the sampler's, and what the likelihood adds to each.

        None where they depend on what is walked.
        """
        calls = 0 if self.sampler is None else self.sampler.network_calls
        further = self.prior.cost.network_calls if isinstance(self.prior, Posterior) else 0
        return None if calls is None else calls * (1 + further)


@dataclass(frozen=True, repr=False)
class Method:
    """A published method.

    Attributes:
        name: what `inverse.sample(method=...)` takes.
        family: exact, guidance, splitting, particles or variational.
        asks: the least that a forward model must offer: its posterior in closed form, p_sigma(y|x)
            at every noise level, an SVD, an adjoint (linear, Gaussian noise), a gradient, or only
            that it can be evaluated (a black box).
        needs: the same in words, with what it asks of the prior.
        jacobian: whether it differentiates through the network.
        cost: network calls and vector-Jacobian products per step (and particle).
        exact_when: where its samples follow the posterior, as steps (and particles) grow.
        paper: title and address.
        steps: the default number of noise levels, or of an optimiser's steps.
        applies: why it cannot sample a posterior, or None; given the options that it names, too.
        build: (posterior, steps, **options) -> Recipe; its keyword arguments are the options.
        deviates: where its defaults, or its sampler, are not those of the paper.
        own_sampler: whether its constants are sizes of its own sampler's steps, so that its
            likelihood is no score that another sampler could follow.
        believes_y: whether its samples are to fit y, noise and all.

    `calibrated` and `measured` are what simulations found of its samples, `options` its options.
    """

    name: str
    family: Family
    asks: Asks
    needs: str
    jacobian: bool
    cost: str
    exact_when: str
    paper: str
    steps: int
    applies: Callable[..., str | None]
    build: Callable[..., Recipe]
    deviates: str = ""
    own_sampler: bool = False
    believes_y: bool = False

    def __repr__(self) -> str:
        jacobian = ", jacobian" if self.jacobian else ""
        found = ", calibrated" if self.calibrated else ""
        return f"Method({self.name!r}, {self.family}, asks: {self.asks}{jacobian}{found})"

    @property
    def calibrated(self) -> bool:
        """Whether ranks of simulated truths found no fault on any problem of known posterior that
        it was run on, P1 to P3 among them; see `inverse.recipes.measured`."""
        found = MEASURED.get(self.name, {})
        return {"P1", "P2", "P3"} <= found.keys() and not any(map(is_fault, found.values()))

    @property
    def measured(self) -> str:
        """What these simulations found, in words: on which problems it is calibrated, on which it
        fails and how, or why it was not run. They are of 49 draws, or particles, and about 100
        network calls a draw; `inverse.calibrate` tells of other problems, steps and options."""
        found = MEASURED.get(self.name)
        if found is None:
            return f"not measured: {UNMEASURED.get(self.name, 'it was not run')}"
        words = {p: PROBLEMS[p] + (f" ({fault})" if fault else "") for p, fault in found.items()}
        passed = [words[p] for p, fault in found.items() if not is_fault(fault)]
        failed = [words[p] for p, fault in found.items() if is_fault(fault)]
        missing = [name for p, name in PROBLEMS.items() if p not in found]
        told = {"calibrated on": passed, "not calibrated on": failed, "not run on": missing}
        return "; ".join(f"{head} {', '.join(these)}" for head, these in told.items() if these)

    @property
    def options(self) -> dict[str, Any]:
        """The options that `inverse.sample` passes on, with their defaults: the paper's values,
        unless `deviates` says otherwise."""
        parameters = inspect.signature(self.build).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def refusal(self, posterior: Posterior, **options: Any) -> str | None:
        """Why this method, with these options, cannot sample this posterior, or None."""
        asked = inspect.signature(self.applies).parameters
        matter = {k: v for k, v in options.items() if k in asked}
        return moving(posterior) or self.applies(posterior, **matter)

    def recipe(self, posterior: Posterior, steps: int, **options: Any) -> Recipe:
        """The recipe for this posterior; an unknown option is refused with the known ones."""
        for name in options:
            self.check_option(name)
        return self.build(posterior, steps, **options)

    def steps_within(self, posterior: Posterior, network_calls: int, **options: Any) -> int | None:
        """The number of steps that spends as many network calls a sample, or a few fewer.

        Methods of several calls a step may take a tenth more than `network_calls`. None where one
        step takes more than that, or where the calls depend on what is walked; `network_calls`
        itself for exact draws, which make none.
        """
        whole(network_calls, "network_calls")

        def calls(steps: int) -> float:
            made = self.recipe(posterior, steps, **options).network_calls
            return math.inf if made is None else made

        most = calls(network_calls)
        if most in (0, math.inf):
            return None if most else network_calls
        # Calls grow with the steps, if not quite in proportion.
        steps = max(1, int(network_calls**2 / most))
        while steps > 1 and calls(steps) > 1.1 * network_calls:
            steps -= 1
        while steps < network_calls and calls(steps + 1) <= network_calls:
            steps += 1
        return steps if calls(steps) <= 1.1 * network_calls else None

    def check_option(self, name: str) -> None:
        """Refuse the name of no option with the known ones, by TypeError."""
        if name not in self.options:
            hint = did_you_mean(name, self.options)
            known = ", ".join(f"{k}={v!r}" for k, v in self.options.items()) or "none"
            raise TypeError(f"{self.name} has no option {name!r}; known: {known}{hint}")


def moving(posterior: Posterior) -> str | None:
    """Why steps that hold y fixed do not sample this posterior, or None."""
    for model, _ in posterior.factors:
        if isinstance(model, TimeDependent) and model.augmented:
            return (
                f"{type(model).__name__} moves with the noise level: Langevin steps sample its "
                "posterior, a reverse SDE or ODE does not"
            )
    return None


def is_fault(found: str) -> bool:
    """Whether an entry of MEASURED says that a test fails."""
    return bool(found) and not found.startswith("but ")
