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
    Inpainting,
    Laplace,
    LinearGaussian,
    MatrixOperator,
    Observation,
    from_function,
    from_simulator,
)
from inverse.likelihoods import GaussianLift, Isotropic, MonteCarloLift, PlugIn
from inverse.particles import BestOf, EnsembleKalman, MCGDiff, TwistedFilter
from inverse.recipes import find
from inverse.samplers import Ancestral, Heun, Multistep, Spherical, StochasticHeun


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
    assert {"bootstrap", "enkg", "scg"} <= set(able)
    assert {find(name).asks for name in able} == {"black box"}
    with pytest.raises(ValueError, match=r"black box.* Methods that can: .*bootstrap, enkg, scg"):
        inverse.sample(posterior, n=2, method="dps")
    assert inverse.sample(posterior, n=2, steps=4).diagnostics["method"] == "unscented"
    assert inverse.sample(POSTERIORS["black box"](), steps=4).diagnostics["method"] == "scg"
    for name in able:
        assert inverse.sample(posterior, n=4, method=name, steps=4, seed=0).x.isfinite().all()
    with pytest.raises(ValueError, match=r"no operator.* Methods that can: .*bootstrap, scg"):
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


def test_an_ensemble_of_one_is_refused_before_any_network_call():
    known, model, y, _ = problem()

    class Untouched(priors.Prior):
        event_shape, sigma_range = known.event_shape, known.sigma_range

        def _denoise(self, x, sigma):
            raise AssertionError("called")

    posterior = inverse.condition(Untouched(), model, y)
    with pytest.raises(ValueError, match="at least 2 particles"):
        inverse.sample(posterior, n=1, method="enkg", steps=3)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda levels: StochasticHeun(levels), "StochasticHeun are not Gaussian"),
        (lambda levels: Heun(levels), "Heun are not Gaussian"),
        (lambda levels: Spherical(levels), "Spherical are not Gaussian"),
        (lambda levels: Ancestral(levels, 0.0), "to 1 have no noise"),
        (lambda levels: Multistep(levels, 0.0), "to 1 have no noise"),
        (lambda levels: Ancestral([2.0, 0.5, 0.0]), "the levels of the filter"),
    ],
)
def test_proposals_without_a_density_are_refused(make, match):
    levels = torch.tensor([2.0, 1.0, 0.0])
    with pytest.raises(ValueError, match=match):
        TwistedFilter(levels, proposal=make(levels))


def test_a_particle_method_of_the_callers_own_is_a_sampler():
    """Alone over the posterior's lift, or over that of a named method."""
    posterior = POSTERIORS["linear"]()
    method = TwistedFilter(priors.geometric(5, posterior.sigma_range), order=1)
    found = inverse.sample(posterior, n=8, sampler=method, seed=2)
    alone = method(posterior, 8, seed=2, dtype=DOUBLE)
    assert torch.equal(found.x, alone.x)
    torch.testing.assert_close(found.weights, alone.log_weights.exp())
    over = inverse.sample(posterior, n=8, method="pigdm", sampler=method, seed=2)
    assert over.diagnostics["method"] == "pigdm by TwistedFilter"
    assert over.diagnostics["jacobian_products"] == 5
    assert over.weights is not None
    with pytest.raises(ValueError, match="a prior has none"):
        inverse.sample(posterior.prior, n=8, sampler=method)


def isotropic(model, y):
    return GaussianLift(model, y, Isotropic(1.0))


def test_a_lift_of_the_callers_own_is_the_twist_or_is_refused():
    posterior = POSTERIORS["opaque"]()
    lifted = posterior.lifted(isotropic)
    options = {"n": 6, "steps": 5, "seed": 1}
    for name, products in (("tds", 5), ("bootstrap", 0)):
        own = inverse.sample(lifted, method=name, **options)
        assert own.diagnostics["jacobian_products"] == products
        given = inverse.sample(posterior, method=name, twist=isotropic, **options)
        assert torch.equal(own.x, given.x)
        assert own.diagnostics["log_evidence"] == given.diagnostics["log_evidence"]
    plain, own = (
        inverse.sample(p, method="scg", begin=0.0, greedy=False, **options)
        for p in (posterior, posterior.lifted(PlugIn))
    )
    assert plain.diagnostics["log_evidence"] != own.diagnostics["log_evidence"]
    for name in ("mcgdiff", "ddsmc", "fps", "enkg"):
        with pytest.raises(ValueError, match=r"a lift of its own.* Methods that can: .*tds"):
            inverse.sample(lifted, method=name, **options)


@pytest.mark.parametrize("key", ["opaque", "image", "curved", "black box", "classes"])
def test_weighed_candidates_take_no_derivative(key):
    found = inverse.sample(POSTERIORS[key](), n=4, method="scg", steps=5, seed=0, greedy=False)
    assert found.diagnostics["jacobian_products"] == 0
    assert found.diagnostics["log_evidence"] is not None


def test_weighed_candidates_know_the_evidence_of_a_sharp_measurement():
    """At sigma_y = 0.2 a twist that is sure of D would lose all particles but one at the start."""
    prior, model, _, _ = problem(size=3, rows=2)
    mean, covariance = prior.moments()
    A = model.operator.matrix
    noise = model.sigma**2 * torch.eye(2, dtype=DOUBLE)
    marginal = torch.distributions.MultivariateNormal(A @ mean, A @ covariance @ A.T + noise)
    posterior = inverse.condition(prior, model, A @ mean + 0.3)
    found = inverse.sample(
        posterior, n=600, method="scg", steps=60, seed=0, greedy=False, candidates=3
    )
    error = found.diagnostics["log_evidence_error"]
    assert error < 0.4
    truth = float(marginal.log_prob(A @ mean + 0.3))
    assert abs(found.diagnostics["log_evidence"] - truth) < 4 * error


def test_a_lift_that_cannot_guide_is_refused_by_guided_particles():
    posterior = POSTERIORS["black box"]().lifted(lambda m, y: MonteCarloLift(m, y, scale=1.0))
    with pytest.raises(TypeError, match="black box"):
        inverse.sample(posterior, n=4, method="tds", steps=3)
    assert inverse.sample(posterior, n=4, method="bootstrap", steps=3).x.isfinite().all()


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


@pytest.mark.parametrize("steps", [40, 160])
def test_enkg_fits_noise_that_is_not_gaussian_at_any_number_of_steps(steps):
    """A pull by the sign of y - z alone, as Laplace's score has, would blow the group up."""
    prior, model, y, _ = problem()
    laplace = Observation(model.operator, Laplace(0.3))
    posterior = inverse.condition(prior, laplace, y)
    samples = inverse.sample(posterior, n=200, method="enkg", steps=steps, seed=0)
    _, product = prior.covariance(torch.zeros(6, 6, dtype=torch.float64), 1e4)
    widest = product(torch.eye(6, dtype=torch.float64)).diagonal().sqrt()
    assert bool((samples.std < 1.2 * widest).all())
    assert samples.diagnostics["reduced_chi2"] < 2


@pytest.mark.parametrize("sigma", [0.05, 0.3, 0.07])
def test_mcgdiff_meets_a_level_that_is_the_noise_of_a_direction(sigma):
    """In float32, where sigma_y rounded may lie on either side of the level."""
    prior = priors.Gaussian(torch.zeros(6), 1.0)
    model = LinearGaussian(Inpainting(torch.arange(6) < 3), sigma)
    g = torch.Generator().manual_seed(0)
    y = model.simulate(prior.sample(1, g), g)
    for level in (sigma, sigma * (1 + 2e-16), sigma * (1 - 2e-16)):
        levels = [10.0, 1.0, 0.5, level, level / 2, 0.0]
        found = MCGDiff(levels)(inverse.condition(prior, model, y), 4, seed=0)
        assert found.x.isfinite().all()
