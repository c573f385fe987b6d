"""Noise levels and times: every law's map is continuous, and its inverse is its inverse."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prior_cases import LOADED, SCHEDULES, inner_prior, network_prior
from published_score_sde import CASES

import priors
from priors import NetworkPrior, Schedule
from priors.from_network import TIMES
from priors.network import PARAMETRIZATIONS
from priors.pretrained import adm, score_sde
from priors.pretrained.diffusers_schedulers import noise_law
from priors.pretrained.edm_preconditioning import preconditioning
from priors.pretrained.score_sde_settings import read_settings
from priors.times import TimeMap, usual_time


class Law(NamedTuple):
    time: TimeMap
    sigma_range: tuple[float, float]


def diffusers(scheduler: str, **config) -> Law:
    law = noise_law(scheduler, config)
    return Law(law.time, law.sigma_range)


def guided_diffusion(**flags) -> Law:
    law = adm.noise(flags)
    return Law(law.time, law.sigma_range)


def edm(name: str, **settings) -> Law:
    law = preconditioning({"class_name": name, **settings})
    return Law(law.time, law.sigma_range)


def published(name: str) -> Law:
    _, _, time, levels = score_sde.noise(read_settings(CASES[name])[1])
    return Law(time, levels)


def of_schedule(time: TimeMap, schedule: Schedule) -> Law:
    return Law(time, (float(schedule.sigma(1e-3)), float(schedule.sigma(0.999))))


CONTINUOUS = {"prediction_type": "v_prediction", "timestep_type": "continuous"}
LAWS = (
    {
        "table": diffusers("DDPMScheduler"),
        "cosine table": diffusers("DDIMScheduler", beta_schedule="squaredcos_cap_v2"),
        "zero SNR": diffusers(
            "DDIMScheduler", rescale_betas_zero_snr=True, beta_schedule="scaled_linear"
        ),
        "continuous": diffusers(
            "EulerDiscreteScheduler", sigma_min=0.002, sigma_max=700.0, **CONTINUOUS
        ),
        "EDM scheduler": diffusers("EDMEulerScheduler"),
        "flow scheduler": diffusers("FlowMatchEulerDiscreteScheduler"),
        "score scheduler": diffusers("ScoreSdeVeScheduler"),
        "ADM": guided_diffusion(noise_schedule="linear"),
        "ADM, cosine": guided_diffusion(noise_schedule="cosine"),
        "ADM, rescaled": guided_diffusion(
            noise_schedule="linear", diffusion_steps=4000, rescale_timesteps=True
        ),
        "EDM": edm("EDMPrecond"),
        "EDM's VP": edm("VPPrecond"),
        "EDM's VP, other constants": edm("VPPrecond", beta_d=12.0, beta_min=0.3, M=250),
        "EDM's VE": edm("VEPrecond"),
        "EDM's iDDPM": edm("iDDPMPrecond"),
    }
    | {name: published(name) for name in CASES}
    | {
        f"usual, {kind} under {name}": of_schedule(usual_time(kind, schedule), schedule)
        for kind in PARAMETRIZATIONS
        for name, schedule in SCHEDULES.items()
    }
    | {
        f"{words} under {name}": of_schedule(TIMES[words](schedule), schedule)
        for words in TIMES
        for name, schedule in SCHEDULES.items()
    }
)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@given(place=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_sigma_and_time_are_inverse_and_continuous(law: Law, place: float) -> None:
    low, high = law.sigma_range
    sigma = torch.tensor([low * (high / low) ** place], dtype=torch.float64).clamp(low, high)
    time = law.time(sigma)
    torch.testing.assert_close(law.time.sigma(time), sigma, rtol=1e-6, atol=0)
    torch.testing.assert_close(law.time(law.time.sigma(time)), time, rtol=1e-6, atol=1e-9)
    up, down = (law.time((sigma * (1 + d)).clamp(low, high)) for d in (1e-7, -1e-7))
    assert abs(float(up - down)) < 2e-4 * (1 + abs(float(time)))


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_times_are_strictly_monotone_in_the_level(law: Law) -> None:
    low, high = law.sigma_range
    place = torch.linspace(0, 1, 2001, dtype=torch.float64)
    steps = law.time((low * (high / low) ** place).clamp(low, high)).diff()
    assert bool((steps > 0).all()) or bool((steps < 0).all())


def test_times_of_ends_and_steps_as_published() -> None:
    def ends(name: str) -> list[float]:
        law = LAWS[name]
        return law.time(torch.tensor(law.sigma_range, dtype=torch.float64)).tolist()

    assert ends("table") == pytest.approx([0, 999], abs=1e-6)
    assert ends("ADM") == pytest.approx([0, 999], abs=1e-6)
    assert ends("ADM, rescaled") == pytest.approx([0, 999.75], abs=1e-6)
    assert ends("EDM's VP") == pytest.approx([999e-5, 999], rel=1e-6)
    assert ends("NCSN++ VE, discrete") == pytest.approx([999, 0], abs=1e-6)
    assert ends("DDPM++ VP") == pytest.approx([0.999, 999], rel=1e-6)
    assert ends("EDM's VE") == pytest.approx([-4.605170186, 3.912023005])
    assert ends("usual, flow under Flow") == pytest.approx([1, 999])


@pytest.mark.parametrize("name", ["epsilon VP", "score VE", "v Cosine", "flow Flow", "edm"])
def test_a_prior_around_a_network_knows_the_level_of_a_time(name: str) -> None:
    assert isinstance(network_prior(name, inner_prior()).time, TimeMap)


@pytest.mark.parametrize("make", LOADED.values(), ids=LOADED)
def test_a_loaded_network_knows_the_level_of_a_time(make) -> None:
    prior = make()
    prior = getattr(prior, "prior", prior)  # of latents
    prior = getattr(prior, "conditional", prior)
    if isinstance(prior, NetworkPrior):
        assert isinstance(prior.time, TimeMap)


@pytest.mark.parametrize("words", TIMES)
def test_a_network_of_ones_own_knows_the_level_of_a_time(words: str) -> None:
    prior = priors.from_network(
        lambda x, time: x, "epsilon", event_shape=(2,), time=words, check=False
    )
    assert isinstance(prior.time, TimeMap)
