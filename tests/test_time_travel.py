"""Time travel: the paths it walks, what it costs, and one recurrence written out."""

from __future__ import annotations

import math

import pytest
import torch
from problems import DOUBLE

import priors
from inverse.randomness import NoiseStream
from inverse.samplers import (
    AdaptiveODE,
    Ancestral,
    AnnealedLangevin,
    DivergenceError,
    Heun,
    Langevin,
    Multistep,
    PredictorCorrector,
    TimeTravel,
)

LEVELS = [8.0, 4.0, 2.0, 1.0, 0.0]


def path(*args, **options):
    return TimeTravel(*args, **options).path.tolist()


def test_paths():
    once = Ancestral(LEVELS)
    assert path(once, repeats=1) == LEVELS
    assert path(once) == [8, 4, 8, 4, 2, 4, 2, 1, 2, 1, 0, 1, 0]
    assert path(once, jumps=2, repeats=3) == [8, 4, 2, 8, 4, 2, 8, 4, 2, 1, 0, 2, 1, 0, 2, 1, 0]
    # Blocks are counted from the last level; the first may be shorter.
    assert path(once, jumps=3) == [8, 4, 8, 4, 2, 1, 0, 4, 2, 1, 0]
    assert path(once, jumps=9) == [8, 4, 2, 1, 0, 8, 4, 2, 1, 0]
    assert path(once, sigma_range=(1.0, 4.0)) == [8, 4, 2, 4, 2, 1, 2, 1, 0]
    corrected = PredictorCorrector(Heun(LEVELS), 2)
    assert path(corrected, jumps=2, sigma_range=(1.0, 9.0)) == [
        8, 4, 4, 4, 2, 2, 2, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1, 0,
    ]  # fmt: skip


def test_repaints_number_of_network_calls():
    """250 steps, jumps of 10, 10 walks of every block but the first."""
    levels = priors.geometric(250, (0.01, 50.0))
    repaint = TimeTravel(Ancestral(levels), jumps=10, repeats=10, sigma_range=(0, float(levels[1])))
    assert repaint.network_calls == 10 + 240 * 10
    steps_up = int((repaint.path.diff() > 0).sum())
    # Theirs counts the steps up, ten small ones for one jump.
    assert repaint.network_calls + 10 * steps_up == 4570


def test_calls_of_steps_that_need_two():
    assert TimeTravel(Heun(LEVELS)).network_calls == 2 * (2 + 2 + 2 + 1)
    corrected = TimeTravel(PredictorCorrector(Heun(LEVELS)))
    assert corrected.network_calls == 2 * (3 + 3 + 3 + 1)


def test_a_recurrence_written_out():
    prior = priors.Gaussian(torch.tensor([0.7, -1.0], dtype=DOUBLE), 0.4)
    noise = NoiseStream(3, range(5), (2,), DOUBLE)
    x = noise.normal(0)
    found = TimeTravel(Ancestral([3.0, 1.0, 0.5]), repeats=3)(prior, start=x, noise=noise)
    k = 1
    for top, bottom in ((3.0, 1.0), (1.0, 0.5)):
        for walk in range(3):
            if walk:
                x = x + math.sqrt(top**2 - bottom**2) * noise.normal(k)
                k += 1
            x0 = prior.denoise(x, top)
            c = bottom / top * math.sqrt(top**2 - bottom**2)
            x = x0 + math.sqrt(bottom**2 - c**2) / top * (x - x0) + c * noise.normal(k)
            k += 1
    assert torch.allclose(found, x, rtol=0, atol=1e-12)


def test_divergence_names_the_step_of_the_path():
    class Broken(priors.Prior):
        event_shape, sigma_range = (1,), (0.1, 8.0)

        def _denoise(self, x, sigma):
            return torch.where(sigma < 3, float("nan"), 0.0).expand(x.shape)

    with pytest.raises(DivergenceError, match=r"step 7/12, sigma = 1,"):
        TimeTravel(Ancestral(LEVELS))(Broken(), n=1)


def test_samplers_that_cannot_go_back_are_refused():
    with pytest.raises(ValueError, match=r"Multistep looks back.*choose Ancestral"):
        TimeTravel(Multistep(LEVELS))
    for settled in (AnnealedLangevin(LEVELS), Langevin(1.0, 0.1, 3)):
        with pytest.raises(ValueError, match="settles at each level already"):
            TimeTravel(settled)
    with pytest.raises(ValueError, match="AdaptiveODE chooses its own steps"):
        TimeTravel(AdaptiveODE((0.1, 1.0)))
    with pytest.raises(ValueError, match="TimeTravel goes back itself"):
        TimeTravel(TimeTravel(Ancestral(LEVELS)))
    with pytest.raises(TypeError, match="sampler must be a Sampler, got list"):
        TimeTravel(LEVELS)
    for bad in (0, 1.5, True):
        with pytest.raises(ValueError, match="jumps must be"):
            TimeTravel(Heun(LEVELS), jumps=bad)
        with pytest.raises(ValueError, match="repeats must be"):
            TimeTravel(Heun(LEVELS), repeats=bad)
    with pytest.raises(ValueError, match="sigma_range must be"):
        TimeTravel(Heun(LEVELS), sigma_range=(2.0, 1.0))
    for inner in (TimeTravel(Ancestral(LEVELS)), AdaptiveODE((0.1, 1.0))):
        with pytest.raises(ValueError, match="does not take one step between two levels"):
            PredictorCorrector(inner)
