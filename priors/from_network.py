"""A prior around any network, with a check that its output is what it was named."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .misfit import NOT_FINITE, misfit
from .network import PARAMETRIZATIONS, Negated, NetworkPrior
from .schedule import VE, VP, Cosine, Flow, Schedule, SubVP
from .times import LevelTime, LogTime, ScheduleTime, TimeMap

TIMES: dict[str, Callable[[Schedule], TimeMap]] = {
    "t": ScheduleTime,
    "999 t": lambda schedule: ScheduleTime(schedule, 999.0),
    "1000 t": lambda schedule: ScheduleTime(schedule, 1000.0),
    "sigma": lambda schedule: LevelTime(),
    "log(sigma)": lambda schedule: LogTime(divisor=1.0),
    "log(sigma) / 4": lambda schedule: LogTime(),
}
"""Conventions for the network's second argument; t and sigma are the schedule's."""

Time = str | Callable[[Tensor], Tensor] | None


def from_network(
    network: Callable[..., Any],
    parametrization: str,
    schedule: Schedule | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    event_shape: tuple[int, ...] = (),
    *,
    time: Time = None,
    network_range: tuple[float, float] = (-1.0, 1.0),
    sigma_range: tuple[float, float] | None = None,
    sigma_data: float = 0.5,
    edm_sign: int = 1,
    any_size: bool = False,
    stride: int = 1,
    check: bool = True,
    seed: int = 0,
) -> NetworkPrior:
    """A prior from a network of your own: what it takes, what it gives, and a trial that it does.

    Args:
        network: called as network(x_t, time) with x_t = alpha x (B, *event) in network units and
            time (B,); returns a tensor, or an object whose `.sample` is one. Used as it is: call
            network.eval().requires_grad_(False) first.
        parametrization: what it returns, one of epsilon, v, x0, score, flow, edm (see
            `NetworkPrior` for their formulas).
        schedule: (alpha, sigma) of its training, in network units, such that
            x_t = alpha (x0 + sigma eps): schedule.sigma is std(noise) / alpha, which exceeds 1
            towards the end of variance-preserving schedules. By default Flow for flow, VE for
            score, VP otherwise; edm needs none.
        data_range: what your images span; sigma of the prior is in these units.
        event_shape: shape of one image.
        time: its second argument: "t", "999 t", "1000 t", "sigma", "log(sigma)", "log(sigma) / 4",
            or a function of sigma (B,) in network units; by default 1000 t for flow, log(sigma) / 4
            for edm, sigma for score under VE and 999 t otherwise.
        network_range: what data_range becomes at the network's input.
        sigma_range: noise levels it has learned, in data units; by default the schedule's from
            t = 0.001 to 0.999 (VE: all of them), for edm 0.002 to 80 in network units.
        sigma_data, edm_sign, any_size, stride: as for `NetworkPrior`.
        check: whether to try it: 28 network calls on a small batch of noise, and at most as many
            with its sign changed, which must not fit too: else a UserWarning says that the
            network tells nothing, as where it was not trained. Where the trial fails, other
            parametrisations and signs, then schedules, then times are tried, at most some thousand
            calls, and the error names those that fit.
        seed: of the trial's noise.

    The check needs no data: the denoiser must approach x as sigma -> 0, stop following the noise as
    sigma -> sigma_max, and make samples inside data_range on which it is a conditional mean (see
    `priors.misfit`). It cannot see data_range, which only names units; a network_range wider than
    the true one; noise levels misnamed by some ten per cent, or by more where the data have mean 0;
    nor whether the prior is any good.

    Raises:
        TypeError: a schedule that is no Schedule.
        ValueError: an unknown parametrisation or time; a shape that the network does not keep; a
            network that does not fit what it was named.

    Papers: those of `NetworkPrior`.
    """
    if not event_shape:
        raise ValueError("event_shape is needed: the shape of one image, such as (3, 64, 64)")
    if isinstance(time, str) and time not in TIMES:
        raise ValueError(f"unknown time {time!r:.80}; known: {', '.join(TIMES)}, or a function")
    given = schedule or {"flow": Flow(), "score": VE()}.get(parametrization, VP())

    def build(parametrization: str, schedule: Schedule, time: Time, sign: int = 1) -> NetworkPrior:
        edm = parametrization == "edm"
        prior = NetworkPrior(
            network if sign == 1 or edm else Negated(network),
            parametrization,
            event_shape,
            data_range=data_range,
            network_range=network_range,
            schedule=schedule,
            time=TIMES[time](schedule) if isinstance(time, str) else time,
            sigma_data=sigma_data,
            edm_sign=edm_sign * sign if edm else edm_sign,
            any_size=any_size,
            stride=stride,
        )
        low, high = (0.002, 80.0) if edm else _levels(schedule)
        prior.sigma_range = sigma_range or (low * prior.unit, high * prior.unit)
        return prior

    prior = build(parametrization, given, time)
    if not check:
        return prior
    device = _device(network)

    def wrong(candidate: NetworkPrior) -> str | None:
        generator = torch.Generator().manual_seed(seed)
        return misfit(candidate, prior.data_range or data_range, generator, device)

    def fits(reading: Reading) -> bool:
        try:
            return wrong(build(*reading)) is None
        except Exception:  # a time or a scale that the network cannot take
            return False

    runs = True
    try:
        found = wrong(prior)
        runs = found != NOT_FINITE
    except Exception as error:  # whatever the user's network raises where it is fed wrongly
        found, runs = f"it raises {type(error).__name__} ({str(error)[:120]})", False
    if found is None:
        if fits((parametrization, given, time, -1)):
            warnings.warn(f"{parametrization} fits, but {_TELLS_NOTHING}", stacklevel=2)
        return prior
    law = "" if parametrization == "edm" else f" with schedule={type(given).__name__}"
    raise ValueError(
        f"the network does not fit parametrization={parametrization!r}{law}: as a denoiser, "
        f"{found}. {_advice(parametrization, given, time, fits, runs)}check=False takes it as it is"
    )


_TELLS_NOTHING = (
    "minus the network fits as well: its output is too small to tell what it is, as of a network "
    "that was not trained, or of data near N(0, sigma_data^2)"
)


Reading = tuple[str, Schedule, Time, int]


def _advice(
    parametrization: str,
    schedule: Schedule,
    time: Time,
    fits: Callable[[Reading], bool],
    runs: bool,
) -> str:
    """What the network could be instead; where it `runs` as given, also what else could be wrong.

    What fits with either sign is no advice.
    """
    for readings in _others(parametrization, schedule, time):
        fitting = [(described, reading) for described, reading in readings if fits(reading)]
        sure = [name for name, (kind, s, t, sign) in fitting if not fits((kind, s, t, -sign))]
        if sure:
            return f"It would fit as {', or as '.join(sure[:6])}. "
        if fitting:
            return f"{fitting[0][1][0]} would fit, but {_TELLS_NOTHING}. "
    if not runs:
        return ""
    return (
        "No parametrisation, sign, time or schedule known here would fit either: check "
        "network_range, sigma_range and sigma_data, and that the network is trained and in "
        "evaluation mode. "
    )


def _others(
    parametrization: str, schedule: Schedule, time: Time
) -> Iterator[list[tuple[str, Reading]]]:
    """Other readings of the network with their descriptions, the nearest to the given first."""
    kinds = [k for k in PARAMETRIZATIONS if k != parametrization]
    yield [(f"minus the network as {parametrization}", (parametrization, schedule, time, -1))] + [
        (f"{'minus the network as ' if sign < 0 else ''}{kind}", (kind, schedule, time, sign))
        for kind in kinds
        for sign in (1, -1)
    ]
    known = (VP(), VE(), Flow(), Cosine(), SubVP())
    yield [
        (f"{kind} with schedule={type(s).__name__}()", (kind, s, time, 1))
        for kind in PARAMETRIZATIONS
        for s in known
        if type(s) is not type(schedule) and kind != "edm"
    ]
    yield [
        (f"{kind} with time={t!r}", (kind, schedule, t, 1))
        for kind in PARAMETRIZATIONS
        for t in TIMES
        if t != time
    ]


def _levels(schedule: Schedule) -> tuple[float, float]:
    if isinstance(schedule, VE):
        return schedule.sigma_min, schedule.sigma_max
    return float(schedule.sigma(1e-3)), float(schedule.sigma(0.999))


def _device(network: Any) -> torch.device:
    if isinstance(network, nn.Module):
        for parameter in network.parameters():
            return parameter.device
    return torch.device("cpu")
