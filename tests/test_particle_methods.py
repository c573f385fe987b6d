"""What single particle methods promise: black boxes, ensembles, candidates, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_cases import POSTERIORS
from problems import DOUBLE, problem

import inverse
import priors
from forward_models import (
    Gaussian,
    LinearGaussian,
    MatrixOperator,
    from_function,
    from_simulator,
)
from inverse.particles import BestOf, EnsembleKalman
from inverse.recipes import find


@pytest.mark.parametrize(
    ("name", "options"),
    [("bootstrap", {}), ("scg", {"greedy": False, "candidates": 3, "begin": 0.5})],
)
def test_a_black_box_is_weighed_without_any_derivative(name, options):
    """Neither the simulator nor the prior of this problem has a gradient to give."""
    mixture = priors.Mixture(
        torch.tensor([[-3.0, 1.0], [3.0, 1.0]], dtype=DOUBLE),
        0.3,
        torch.tensor([0.5, 0.5], dtype=DOUBLE),
    )

    class Opaque(priors.Prior):
        event_shape, sigma_range = mixture.event_shape, mixture.sigma_range

        def _denoise(self, x, sigma):
            return torch.from_numpy(mixture.denoise(x, sigma.flatten()).numpy())

    box = from_simulator(
        lambda x: np.abs(x).sum(-1, keepdims=True) + x[..., :1] / 4,
        Gaussian(0.2), (2,), differentiable=False, interface="numpy",
    )  # fmt: skip
    posterior = inverse.condition(Opaque(), box, torch.tensor([4.4], dtype=DOUBLE))
    found = inverse.sample(posterior, n=1000, method=name, steps=60, seed=0, **options)
    assert found.diagnostics["jacobian_products"] == 0
    assert found.diagnostics["log_evidence"] is not None
    x = mixture.sample(200_000, generator=torch.Generator().manual_seed(0))
    truth = torch.softmax(box.log_likelihood(torch.tensor([[4.4]], dtype=DOUBLE), x), 0)
    for value in (lambda x: x, lambda x: x.square()):
        expected = truth @ value(x)
        spread = ((truth @ value(x).square() - expected**2) / found.diagnostics["roots"]).sqrt()
        assert ((found.weights @ value(found.x) - expected).abs() < 5 * spread).all()


def test_black_boxes_run_under_the_methods_that_only_evaluate():
    """A density alone has no outputs to correlate with: the ensemble needs the operator."""
    known, _, _, _ = problem()
    box = from_simulator(
        lambda x: np.sin(x), Gaussian(0.2), (6,), differentiable=False, interface="numpy"
    )
    posterior = inverse.condition(known, box, torch.full((6,), 0.4, dtype=DOUBLE))
    able = [m.name for m in inverse.methods() if m.refusal(posterior) is None]
    assert {"bootstrap", "enkg", "scg"} <= set(able) <= {"unscented", "bootstrap", "enkg", "scg"}
    with pytest.raises(ValueError, match=r"black box.* Methods that can: .*bootstrap, enkg, scg$"):
        inverse.sample(posterior, n=2, method="dps")
    assert inverse.sample(posterior, n=2, steps=4).diagnostics["method"] == "unscented"
    assert inverse.sample(POSTERIORS["black box"](), steps=4).diagnostics["method"] == "scg"
    for name in able:
        assert inverse.sample(posterior, n=4, method=name, steps=4, seed=0).x.isfinite().all()
    with pytest.raises(ValueError, match=r"no operator.* Methods that can: bootstrap, scg$"):
        inverse.sample(POSTERIORS["black box"](), n=2, method="enkg")


@pytest.mark.parametrize("name", ["mcgdiff", "ddsmc"])
def test_spectral_methods_are_refused_without_white_noise_and_an_svd(name):
    prior, model, y, _ = problem()
    uneven = LinearGaussian(model.operator, torch.tensor([0.1, 0.2, 0.2, 0.2], dtype=DOUBLE))
    with pytest.raises(ValueError, match=r"not white.* Methods that can: .*tds"):
        inverse.sample(inverse.condition(prior, uneven, y), n=4, method=name)
    refused = inverse.condition(prior, uneven, y)
    with pytest.raises(ValueError, match="not white"):
        find(name).recipe(refused, 3).sampler(refused, 4)
    hidden = from_function(model.operator.apply, (6,))
    posterior = inverse.condition(prior, LinearGaussian(hidden, 0.2), y)
    with pytest.raises(ValueError, match="decomposition of FunctionOperator is not known"):
        inverse.sample(posterior, n=4, method=name)


def test_an_ensemble_reaches_a_gaussian_posterior_without_derivatives():
    """Exact as particles and steps grow; Tweedie's mean in place of the ODE's end is not."""
    prior, model, y, _ = problem()
    mean, covariance = prior.condition(model, y).moments()
    deviation = covariance.diagonal().sqrt()
    box = from_simulator(
        lambda x: x @ model.operator.matrix.numpy().T.astype(x.dtype),
        Gaussian(0.2), (6,), differentiable=False, interface="numpy",
    )  # fmt: skip
    posterior = inverse.condition(prior, box, y)
    levels = priors.geometric(60, posterior.sigma_range)
    errors = []
    for inner in (10, 1):
        found = EnsembleKalman(levels, inner)(posterior, 1200, seed=1, dtype=DOUBLE)
        assert found.log_evidence.isnan().all()
        bias = ((found.x.mean(0) - mean) / deviation).abs().max()
        errors.append((float(bias), float((found.x.std(0) / deviation - 1).abs().max())))
    assert errors[0][0] < 0.2, errors
    assert errors[0][1] < 0.1, errors
    assert errors[1][0] > 1, errors


def test_candidates_raise_the_likelihood():
    posterior = POSTERIORS["black box"]()
    levels = priors.geometric(40, posterior.sigma_range)
    fits = [
        posterior.log_clean(BestOf(levels, candidates=n)(posterior, 60, seed=2, dtype=DOUBLE).x)
        for n in (1, 4, 16)
    ]
    means = [float(fit.mean()) for fit in fits]
    assert means[0] + 1 < means[1] < means[2], means


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda levels: BestOf(levels, candidates=0), "candidates"),
        (lambda levels: BestOf(levels, begin=1.5), "begin"),
        (lambda levels: EnsembleKalman(levels, inner=0), "inner"),
        (lambda levels: BestOf(levels, eta=0.0), "eta"),
        (lambda levels: BestOf(levels, order=3), "order"),
    ],
)
def test_options_out_of_range_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make(torch.tensor([1.0, 0.0]))


def test_an_ensemble_of_one_is_refused():
    posterior = POSTERIORS["linear"]()
    with pytest.raises(ValueError, match="at least 2 particles"):
        inverse.sample(posterior, n=1, method="enkg", steps=3)


@pytest.mark.parametrize(("sigma_y", "narrow"), [(0.01, False), (2.0, True)])
def test_fps_is_right_for_small_noise_and_too_narrow_for_large(sigma_y, narrow):
    """One value of three measured: y counts once a level, which only small noise forgives."""
    prior = priors.Gaussian(torch.zeros(3, dtype=DOUBLE), 1.0)
    row = torch.tensor([[1.0, 0.0, 0.0]], dtype=DOUBLE)
    model = LinearGaussian(MatrixOperator(row), sigma_y)
    posterior = inverse.condition(prior, model, torch.tensor([0.8], dtype=DOUBLE))
    found = inverse.sample(posterior, n=400, method="fps", steps=100, seed=0)
    assert found.diagnostics["roots"] > 20
    mean, covariance = prior.condition(model, torch.tensor([[0.8]], dtype=DOUBLE)).moments()
    assert found.diagnostics["log_evidence"] is None
    roots = found.diagnostics["roots"]  # how many of the particles are of different descent
    off = (found.mean - mean) / (covariance.diagonal() / roots).sqrt()
    assert off[1:].abs().max() < 5
    if narrow:
        assert found.std[0] < 0.6 * covariance[0, 0].sqrt()
    else:
        assert abs(found.mean[0] - mean[0]) < 3 * sigma_y
        assert (found.std[1:] - 1).abs().max() < 5 / (2 * roots) ** 0.5
