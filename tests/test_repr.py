"""One short line tells what a prior, an operator or a forward model is; no tensor is printed."""

from __future__ import annotations

import pytest
import torch
from forward_model_cases import FORWARD_MODELS, TIME_DEPENDENT
from nonlinear_cases import NONLINEAR
from operator_cases import OPERATORS
from prior_cases import CONTRACT, LOADED, normal

import forward_models as fm
import inverse
import priors

PRIORS = CONTRACT | LOADED
MODELS = (
    {name: make for name, (make, _) in OPERATORS.items()}
    | {f"nonlinear {name}": case.make for name, case in NONLINEAR.items()}
    | {f"model {name}": case.make for name, case in FORWARD_MODELS.items()}
    | {f"timed {name}": case.make for name, case in TIME_DEPENDENT.items()}
)


def line(thing: object) -> str:
    shown = repr(thing)
    assert shown.startswith(f"{type(thing).__name__}(")
    assert "\n" not in shown
    assert "tensor(" not in shown
    assert " at 0x" not in shown
    assert len(shown) < 300
    return shown


@pytest.mark.parametrize("make", PRIORS.values(), ids=PRIORS.keys())
def test_of_priors(make):
    prior = make()
    shown = line(prior)
    assert f"event_shape={prior.event_shape}" in shown
    assert f"sigma_range=({prior.sigma_range[0]:.4g}, {prior.sigma_range[1]:.4g})" in shown


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_of_operators_and_forward_models(make):
    model = make()
    shape = "any" if model.event_shape is None else model.event_shape
    assert f"event_shape={shape}" in line(model)


def test_what_distinguishes_a_prior():
    mixture = priors.load("digits-mixture")
    assert line(mixture) == (
        "Mixture(event_shape=(1, 28, 28), data_range=(0, 1), sigma_range=(0.0025, 20), "
        "components=30, source='digits-mixture')"
    )
    assert "parametrization='edm', source='digits')" in line(priors.load("digits"))
    assert "covariance=LowRank" in line(priors.Gaussian(normal(6), priors.LowRank(normal(6, 2))))
    assert "images=7" in line(priors.Empirical(normal(7, 2)))
    assert "guidance_scale=1.3, conditional=Gaussian" in line(CONTRACT["guided"]())
    assert "image_shape=(1, 2, 2), image_range=(-1, 1), prior=Mixture" in line(CONTRACT["latent"]())
    model = fm.LinearGaussian(fm.Inpainting(torch.ones(1, 28, 28)), 0.1)
    posterior = inverse.condition(mixture, model, torch.zeros(1, 28, 28))
    assert "prior=Mixture, measured=[LinearGaussian])" in line(posterior)


def test_a_prior_of_ones_own_that_says_little():
    class Point(priors.Prior):
        def _denoise(self, x, sigma):
            return torch.zeros_like(x)

    assert line(Point()) == "Point(event_shape=None, data_range=None, sigma_range=None)"


def test_noise_levels():
    A = fm.MatrixOperator(normal(2, 4))
    each = fm.LinearGaussian(A, torch.tensor([0.1, 0.3]))
    assert line(each) == (
        "LinearGaussian(operator=MatrixOperator, sigma=0.1 to 0.3, event_shape=(4,), "
        "measurement_shape=(2,))"
    )
    counts = fm.Observation(A, fm.Poisson(5.0))
    assert "operator=MatrixOperator, noise=Poisson(gain=5, background=0)" in line(counts)
