"""The law of the noise as prior.json states it, exactly, and the diffusers scheduler nearest to it.

    parametrization, schedule                  scheduler beside it
    epsilon, v, x0 under VP                    DDPMScheduler, linear betas
    epsilon, v, x0 under Cosine (0.008)        DDPMScheduler, squaredcos_cap_v2
    flow under Flow                            FlowMatchEulerDiscreteScheduler
    score under VE                             ScoreSdeVeScheduler
    edm                                        EDMEulerScheduler, which is exact
    others                                     none

A discrete scheduler's levels differ from the schedule's by its steps, so it serves diffusers'
samplers only: `load` goes by prior.json.
"""

from __future__ import annotations

import difflib
import math
from typing import Any

from ..network import PARAMETRIZATIONS
from ..schedule import VE, VP, Cosine, Flow, Schedule, SubVP
from ..times import usual_time
from .diffusers_schedulers import NoiseLaw
from .diffusers_settings import quiet

SCHEDULES: dict[str, tuple[type[Schedule], tuple[str, ...]]] = {
    "ve": (VE, ("sigma_min", "sigma_max")),
    "vp": (VP, ("beta_min", "beta_max")),
    "sub-vp": (SubVP, ("beta_min", "beta_max")),
    "cosine": (Cosine, ("offset",)),
    "flow": (Flow, ()),
}
"""The schedules by name, and what each is made from."""

_STEPS = 1000
_PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}


def schedule_of(stated: Any, where: str = "schedule") -> Schedule:
    """The schedule that {"kind": "vp", "beta_min": ..., "beta_max": ...} names."""
    if not isinstance(stated, dict) or not isinstance(stated.get("kind"), str):
        raise ValueError(f"{where} must be like {{'kind': 'vp'}}, got {stated!r:.80}")
    kind = stated["kind"]
    if kind not in SCHEDULES:
        close = difflib.get_close_matches(kind, SCHEDULES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{where}: unknown kind {kind!r:.40}{hint} Known: {', '.join(SCHEDULES)}")
    cls, names = SCHEDULES[kind]
    given = {key: value for key, value in stated.items() if key != "kind"}
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise ValueError(
            f"{where}: {kind} has no {', '.join(unknown)[:80]}; it has {', '.join(names) or 'none'}"
        )
    for name, value in given.items():
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError(f"{where}.{name} must be a finite number, got {value!r:.60}")
    try:
        return cls(**given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def schedule_facts(schedule: Schedule) -> dict[str, Any]:
    """What `schedule_of` makes an equal schedule from."""
    for kind, (cls, names) in SCHEDULES.items():
        if type(schedule) is cls:
            return {"kind": kind, **{name: getattr(schedule, name) for name in names}}
    raise ValueError(
        f"a {type(schedule).__name__} cannot be written; known: {', '.join(SCHEDULES)}"
    )


def stated_law(facts: dict[str, Any]) -> NoiseLaw | None:
    """The law that prior.json states, if it does; levels are prior.json's own."""
    if "parametrization" not in facts:
        return None
    parametrization = facts["parametrization"]
    if parametrization not in PARAMETRIZATIONS or parametrization == "edm":
        raise ValueError(
            f"prior.json: unknown parametrization {parametrization!r:.40}; known: "
            f"{', '.join(p for p in PARAMETRIZATIONS if p != 'edm')}"
        )
    schedule = schedule_of(facts.get("schedule"), "prior.json: schedule")
    time = usual_time(parametrization, schedule)
    return NoiseLaw(parametrization, (0.002, 80.0), time, schedule=schedule)


def nearest_scheduler(
    parametrization: str,
    schedule: Schedule | None,
    levels: tuple[float, float],
    sigma_data: float | None,
) -> Any:
    """A diffusers scheduler, or None; levels and sigma_data in network units."""
    with quiet():
        import diffusers
    if parametrization == "edm":
        return diffusers.EDMEulerScheduler(
            sigma_min=levels[0], sigma_max=levels[1], sigma_data=sigma_data
        )
    if parametrization in _PREDICTIONS and type(schedule) is VP:
        return diffusers.DDPMScheduler(
            num_train_timesteps=_STEPS,
            beta_start=schedule.beta_min / _STEPS,
            beta_end=schedule.beta_max / _STEPS,
            prediction_type=_PREDICTIONS[parametrization],
            clip_sample=False,
        )
    if parametrization in _PREDICTIONS and type(schedule) is Cosine and schedule.offset == 0.008:
        return diffusers.DDPMScheduler(
            num_train_timesteps=_STEPS,
            beta_schedule="squaredcos_cap_v2",
            prediction_type=_PREDICTIONS[parametrization],
            clip_sample=False,
        )
    if parametrization == "flow" and type(schedule) is Flow:
        return diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=_STEPS)
    if parametrization == "score" and type(schedule) is VE:
        return diffusers.ScoreSdeVeScheduler(
            num_train_timesteps=_STEPS, sigma_min=levels[0], sigma_max=levels[1]
        )
    return None
