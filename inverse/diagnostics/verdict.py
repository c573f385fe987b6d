"""What the figures of a calibration say, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .coverage import Coverage
from .quantities import View, private
from .ranks import Ranks
from .widths import FEW, Shift, Width, far, outside, shifts, visible, width, worth

LEVEL = 1e-3
"""False alarms: the chance that exact draws are called not calibrated."""

ERRORS = 3.0
"""Standard errors from which a width or shift is told, once the ranks have shown a fault."""

BLIND = 0.5
"""The least visible error of width from which no fault found is no verdict."""


@dataclass(frozen=True)
class Evidence:
    """The figures that a verdict rests on.

    Attributes:
        ranks: of each quantity by name.
        widths: of each view by name; `near`: the same without the truths far outside all draws.
        shifts: of single values and projections.
        far: the share of truths far outside all draws, and the chance of so many.
        use: how often y is likelier under the truth, and under its draws, than under draws for
            another measurement; each with its standard error. None where it is not known.
        visible: the least errors of width that would have been seen, by what, where no test fails;
            None: none would.
        worth: the effective number of draws of a simulation, the median.
        level: of false alarms, over all tests together.
    """

    ranks: Mapping[str, Ranks]
    widths: Mapping[str, Width]
    near: Mapping[str, Width]
    shifts: tuple[Shift, ...]
    far: tuple[float, float]
    use: tuple[tuple[float, float], tuple[float, float]] | None
    visible: Mapping[str, float | None]
    worth: float
    level: float

    @property
    def threshold(self) -> float:
        """p-values below it are faults: `level` shared by the quantities and the share of far
        truths (Bonferroni)."""
        return self.level / (len(self.ranks) + 1)

    @property
    def faults(self) -> tuple[str, ...]:
        """The names of the tests that fail, least p first."""
        p = {name: ranks.p_value for name, ranks in self.ranks.items()}
        p["truths far outside"] = self.far[1]
        return tuple(sorted((name for name in p if p[name] < self.threshold), key=lambda k: p[k]))

    @property
    def findings(self) -> tuple[str, ...]:
        """What is wrong, in words; empty where no test fails."""
        if not self.faults:
            return ()
        if self._ignored() and self.use is not None:
            (truth, _), (draws, error) = self.use
            return (
                "ignores the data: draws explain their own measurement better than another's in "
                f"{draws:.2f} +- {error:.2f} of pairs (none: 0.50; truths: {truth:.2f})",
            )
        said = self._missing() or self._widths()
        worst = max(self.shifts, key=lambda s: abs(s.value) / max(s.error, 1e-12), default=None)
        if worst is not None and abs(worst.value) > (ERRORS + 1) * worst.error:
            said.append(str(worst))
        said += self._uneven(said) + self._fit()
        if not said:
            first = self.faults[0]
            beyond = f"{100 * self.far[0]:.1f} % of the truths lie far outside all draws"
            uneven = f"the ranks of {first} are not uniform"
            said = [beyond if first == "truths far outside" else uneven]
        return tuple(said)

    @property
    def decided(self) -> bool:
        """Whether a test fails, or every width that is looked at would have failed one if wrong by
        half."""
        return bool(self.faults) or not self._unseen()

    @property
    def verdict(self) -> str:
        """One line: calibrated, or not and why, or too few simulations to tell."""
        if self.faults:
            return f"not calibrated: {'; '.join(self.findings)}"
        found = f"no fault found in {len(next(iter(self.ranks.values())))} simulations"
        blind = self._unseen()
        if blind:
            shown = " or ".join(
                what if self.visible[what] is None else f"{what} below {self._percent(what)}"
                for what in blind
            )
            if self.worth < FEW:
                few, more = f"whose draws are worth {self.worth:.1f} equal ones,", "draws"
            else:
                few, more = "which are", "simulations"
            return (
                f"undecided: {found}, {few} too few to show a width error in {shown}; take more "
                f"{more}{self._on_average()}"
            )
        seen = " or ".join(f"{self._percent(what)} in {what}" for what in self.visible)
        told = f"; a width error of {seen} in all of them would have been seen" if seen else ""
        return f"calibrated: {found}{told}{self._on_average()}"

    def summary(self) -> dict[str, Any]:
        """All of it in numbers and words, for JSON."""
        ranks = {
            name: {
                "D": r.distance, "p": r.p_value, "p_of": r.p_values, "mean_rank": r.mean[0],
                "mean_rank_error": r.mean[1], "fault": r.p_value < self.threshold,
            }
            for name, r in self.ranks.items()
        }  # fmt: skip
        return {
            "verdict": self.verdict,
            "calibrated": self.decided and not self.faults,
            "decided": self.decided,
            "findings": list(self.findings),
            "false_alarm_rate": self.level,
            "p_threshold": self.threshold,
            "quantities": ranks,
            "widths": {k: {"ratio": w.value, "error": w.error} for k, w in self.widths.items()},
            "shifts": {s.label: {"value": s.value, "error": s.error} for s in self.shifts},
            "truths_far_outside": {"share": self.far[0], "p": self.far[1]},
            "use_of_data": None if self.use is None else
            {"truth": list(self.use[0]), "draws": list(self.use[1])},
            "visible_width_error": dict(self.visible),
        }  # fmt: skip

    def _unseen(self) -> list[str]:
        """In what an error of width could be as large as BLIND, or any, and not be seen."""
        return [what for what, error in self.visible.items() if error is None or error > BLIND]

    def _percent(self, what: str) -> str:
        return f"{100 * (self.visible[what] or 0):.0f} %"

    def _ignored(self) -> bool:
        """Draws no nearer to their own measurement than to another, where the truth is."""
        if self.use is None:
            return False
        (truth, truth_error), (draws, error) = self.use
        used, could = draws - 0.5, truth - 0.5
        return abs(used) < max(ERRORS * error, 0.05 * could) and could > 5 * max(truth_error, error)

    def _missing(self) -> list[str]:
        """Truths beyond all draws, while the others have draws of about the right width."""
        share, chance = self.far
        if chance >= self.threshold:
            return []
        name = max(self.widths, key=lambda k: abs(_log(self.widths[k])))
        whole, near = self.widths[name], self.near.get(name)
        if near is None or abs(_log(near)) > abs(_log(whole)) / 3:
            return []
        return [
            f"misses a part of the posterior: {100 * share:.0f} % of the truths lie far outside "
            f"all draws (and make them {whole}); for the others the width is right within "
            f"{100 * abs(near.value - 1):.0f} %"
        ]

    def _widths(self) -> list[str]:
        order = ["measured", "unmeasured", "values", "projections"]
        clear = {k: w for k, w in self.widths.items() if abs(w.deviation) > ERRORS}
        chosen = [k for k in order[:2] if k in clear] or [k for k in order[2:] if k in clear][:1]
        return [str(clear[k]) for k in sorted(chosen, key=lambda k: -abs(_log(clear[k])))]

    def _on_average(self) -> str:
        """Widths that few simulations make wrong, which weigh little among the ranks.

        No test: of modes that few truths visit, the standard errors know nothing.
        """
        far = [str(w) for w in self.widths.values() if abs(w.deviation) > ERRORS + 1]
        return f"; but on average over them, by few of them, {', '.join(far)}" if far else ""

    def _uneven(self, said: list[str]) -> list[str]:
        """Spreads that are wrong, though no width on average is told of their view."""
        found = []
        for name in self.faults:
            view = self.widths.get(name.removeprefix("spread, "))
            if name.startswith("spread, ") and view and not any(view.words in s for s in said):
                found.append(
                    f"the distance of truths from the middle of the draws is not that of the "
                    f"draws in {view.words} (D = {self.ranks[name].distance:.2f})"
                )
        return found

    def _fit(self) -> list[str]:
        name = next(iter(self.ranks))
        if name not in self.faults:
            return []
        mean, error = self.ranks[name].mean
        kind = "less" if mean > 0.5 else "more"
        if abs(mean - 0.5) < ERRORS * error:
            return []
        return [
            f"draws fit y {kind} closely than the truth does (its {name} lies above that of "
            f"{100 * mean:.0f} % +- {100 * error:.0f} % of them)"
        ]


def weigh(
    found: Mapping[str, Tensor], names: list[str], seen: tuple[View, ...], seed: int
) -> tuple[Evidence, dict[str, Coverage]]:
    """The figures of finished simulations; `found` is what `Experiment.run` gives."""
    values, weights = found["quantities"], found["weights"]
    ranks, spreads = {}, {}
    for k, name in enumerate(names):
        own = values[:, k]
        generator = private(seed, f"ranks/{name}")
        ranks[name] = Ranks.of(own[:, 0], own[:, 1:], generator, weights, name)
        if name.startswith("spread, "):
            spreads[name.removeprefix("spread, ")] = own
    away = torch.stack([far(s) for s in spreads.values()]).any(0)
    chance = min(1.0, len(spreads) * min(outside(s) for s in spreads.values()))
    widths, near, moved, coverage = {}, {}, [], {}
    for view in seen:
        error, variance = found[f"{view.name}/error"], found[f"{view.name}/variance"]
        widths[view.name] = width(view, error, variance, weights)
        if int((~away).sum()) > 1:
            near[view.name] = width(view, error[~away], variance[~away], weights[~away])
        if view.name in ("values", "projections"):
            moved += shifts(view, error, variance)
        coverage[view.name] = Coverage(found[f"{view.name}/inside"], view.words)
    use = found["use"]
    known = use[use.isfinite().all(1)]
    use_of_data = None
    if len(known) > 1:
        of_truth, of_draws = known.mean(0).tolist()
        truth_error, draws_error = (known.std(0) / math.sqrt(len(known))).tolist()
        use_of_data = ((of_truth, truth_error), (of_draws, draws_error))
    evidence = Evidence(
        ranks, widths, near, tuple(moved), (float(away.double().mean()), chance), use_of_data, {},
        worth(weights), LEVEL,
    )  # fmt: skip
    if not evidence.faults:
        words = {view.name: view.words for view in seen}
        least = {
            words[name]: visible(spread, weights, evidence.threshold, seed)
            for name, spread in spreads.items()
        }
        evidence = replace(evidence, visible=least)
    return evidence, coverage


def _log(one: Width) -> float:
    return math.log(min(max(one.value, 1e-6), 1e6))
