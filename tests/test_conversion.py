"""Errors of approximate likelihoods beside the exact one: closed forms and known orders."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from likelihood_cases import AsNetwork, mixture, observed
from problems import DOUBLE, problem

import priors
from forward_models import Gaussian, LinearGaussian, MatrixOperator, from_simulator
from inverse.diagnostics.conversion import PATHS, conversion_errors
from inverse.likelihoods import (
    Absorbed,
    GaussianLift,
    Isotropic,
    Likelihood,
    LinearisedLift,
    PlugIn,
    SigmaPointLift,
    Tweedie,
)

SIGMAS = (0.1, 1.0, 10.0)


def tweedie(model, y):
    return GaussianLift(model, y, Tweedie())


EXACT = {
    "tweedie": tweedie,
    "linearised": lambda m, y: LinearisedLift(observed(m), y),
    "sigma points": lambda m, y: SigmaPointLift(observed(m), y),
}


@pytest.mark.parametrize("isotropic", [False, True])
def test_exact_lifts_have_no_error_on_gaussian_priors(isotropic):
    prior, model, y, _ = problem(isotropic=isotropic)
    lifts = EXACT | {"isotropic": lambda m, y: GaussianLift(m, y, Isotropic(s=math.sqrt(0.7)))}
    found = conversion_errors(prior, model, y, lifts, SIGMAS, draws=16)
    for error in found.errors:
        exact = error.lift in EXACT or isotropic
        assert (error.score.value < 1e-9) == exact, error
        assert (error.log.value < 1e-9) == exact, error


def test_the_plug_in_has_the_error_of_the_missing_covariance():
    """One value, D ~ N(0, 1): the score lacks the factor S / (S + a^2 c), c = Var[x0 | x], whatever
    x, and log p~ - log p = log(1 + a^2 c / S) / 2 - r^2 (1 / S - 1 / (S + a^2 c)) / 2."""
    prior, a, S = priors.Gaussian(torch.zeros(1, dtype=DOUBLE), 1.0), 1.3, 0.5
    model = LinearGaussian(MatrixOperator(torch.tensor([[a]], dtype=DOUBLE)), math.sqrt(S))
    y = torch.tensor([[0.9]], dtype=DOUBLE)
    plug_in = {"plug-in": lambda m, y: PlugIn(m, y, bounded=False)}
    found = conversion_errors(prior, model, y, plug_in, SIGMAS, draws=4000)
    truth = prior.condition(model, y)
    for path in PATHS:
        law = truth if path == "posterior" else prior
        for error in found.of("plug-in", path):
            c = error.sigma**2 / (1 + error.sigma**2)
            assert error.score.value == pytest.approx(a**2 * c / S, rel=1e-9)
            assert error.score.error < 1e-6
            x = law.sample(200_000, torch.Generator().manual_seed(1))
            x = x + error.sigma * torch.randn(
                x.shape, generator=torch.Generator().manual_seed(2), dtype=DOUBLE
            )
            r2 = (0.9 - a * x / (1 + error.sigma**2)).square()
            apart = math.log1p(a**2 * c / S) / 2 - r2 * (1 / S - 1 / (S + a**2 * c)) / 2
            assert error.log.value == pytest.approx(
                float(apart.abs().mean()), abs=5 * error.log.error
            )


def test_on_a_mixture_each_lift_fails_where_its_assumption_does():
    prior = mixture()
    A = torch.randn(2, 6, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
    model = LinearGaussian(MatrixOperator(A), 0.4)
    y = model.simulate(prior.sample(1, torch.Generator().manual_seed(4)))
    lifts = {
        "tweedie": tweedie,
        "isotropic": lambda m, y: GaussianLift(m, y, Isotropic(s=math.sqrt(0.3))),
        "plug-in": lambda m, y: PlugIn(m, y, bounded=False),
        "absorbed": lambda m, y: Absorbed(tweedie(m, y)),
    }
    found = conversion_errors(prior, model, y, lifts, (0.05, 3.0, 10.0), draws=100)
    low, middle, high = ({name: found.of(name, "posterior")[k] for name in lifts} for k in range(3))
    # Within one component the covariance is 0.3 I; what is absorbed is another path.
    assert low["tweedie"].score.value < 1e-3
    assert low["isotropic"].score.value < 1e-3
    assert low["absorbed"].score.value > 0.01
    for level in (middle, high):
        order = [level[n].score.value for n in ("tweedie", "isotropic", "plug-in")]
        assert order == sorted(order)
        assert 0.01 < order[0] < 1 < order[2]
        assert level["absorbed"] == replace(level["tweedie"], lift="absorbed")


def test_nonlinear_models_of_a_data_set_have_their_exact_likelihood():
    """p_sigma(y | x) = sum_i r_i(x) p(y | x_i), and its gradient by automatic derivatives."""
    atoms = torch.randn(9, 3, generator=torch.Generator().manual_seed(5), dtype=DOUBLE)
    prior = priors.Empirical(atoms)
    model = from_simulator(lambda x: x.norm(dim=-1, keepdim=True), Gaussian(0.5), (3,))
    y = torch.tensor([[1.2]], dtype=DOUBLE)

    class OfAtoms(Likelihood):
        def shift(self, moments):
            with torch.enable_grad():
                x = moments.x.detach().requires_grad_()
                (g,) = torch.autograd.grad(self._density(x, moments.sigma).sum(), x)
            return moments.sigma**2 * g

        def log_likelihood(self, moments):
            return self._density(moments.x, moments.sigma)

        def _density(self, x, sigma):
            joint = -((x[:, None] - atoms) ** 2).sum(-1) / (2 * sigma**2)
            return torch.logsumexp(joint.log_softmax(1) + model.log_likelihood(y, atoms)[None], 1)

    found = conversion_errors(
        prior, model, y, {"atoms": lambda m, y: OfAtoms()}, (0.3, 2.0), draws=20
    )
    for error in found.errors:
        assert error.score.value < 1e-8, error
        assert error.log.value < 1e-10, error


def test_errors_are_the_spread_over_repetitions():
    prior = mixture()
    A = torch.randn(1, 6, generator=torch.Generator().manual_seed(6), dtype=DOUBLE)
    model, y = LinearGaussian(MatrixOperator(A), 0.4), torch.tensor([[0.3]], dtype=DOUBLE)
    runs = [
        conversion_errors(
            prior, model, y, {"tweedie": tweedie}, (3.0,), draws=100, seed=seed
        ).errors[0]
        for seed in range(60)
    ]
    for figure in ("score", "log"):
        values = torch.tensor([getattr(run, figure).value for run in runs])
        errors = torch.tensor([getattr(run, figure).error for run in runs])
        assert 0.6 < float(errors.mean() / values.std()) < 1.5, figure


def test_what_cannot_be_evaluated_says_why():
    prior, model, y, _ = problem()

    class Silent(Likelihood):
        def shift(self, moments):
            raise RuntimeError("no shift")

        log_likelihood = shift

    lifts = {"silent": lambda m, y: Silent(), "tweedie": tweedie}
    silent, spoken = conversion_errors(prior, model, y, lifts, (1.0,), draws=4).errors[:2]
    assert math.isnan(silent.score.value)
    assert silent.reason == "RuntimeError: no shift"
    assert spoken.reason == ""


def test_the_picture_holds_the_figures(tmp_path):
    prior, model, y, _ = problem()
    plug_in = {"plug-in": lambda m, y: PlugIn(m, y, bounded=False)}
    found = conversion_errors(prior, model, y, plug_in, SIGMAS, draws=8)
    axes = found.plot(tmp_path / "conversion.png", figure="log", path="prior")
    assert (tmp_path / "conversion.png").read_bytes()[:4] == b"\x89PNG"
    (line, *_), *_ = axes.containers
    assert list(line.get_ydata()) == [e.log.value for e in found.of("plug-in", "prior")]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > max(line.get_ydata())
    lines = str(found).splitlines()
    assert lines[0] == "relative error of the score, at draws of the posterior's path"
    assert lines[1].split() == ["noise", "level", *(f"{s:.3g}" for s in SIGMAS)]
    e = found.of("plug-in", "prior")[0].log
    assert lines[9] == "error of the log likelihood, nats, at draws of the prior's path"
    assert lines[11].split()[:4] == ["plug-in", f"{e.value:.2g}", "±", f"{e.error:.1g}"]
    refused = replace(found, errors=tuple(replace(e, reason="no") for e in found.errors))
    assert str(refused).splitlines()[2].split() == ["plug-in", *["refused"] * len(SIGMAS)]
    assert str(refused).splitlines()[-1] == "plug-in: no"
    with pytest.raises(ValueError, match="figure must be one of"):
        found.plot(figure="lgo")
    with pytest.raises(ValueError, match="path must be one of"):
        found.of("plug-in", "posteriors")
    with pytest.raises(ValueError, match="known lifts: plug-in"):
        found.of("other", "prior")


def test_refusals():
    prior, model, y, _ = problem()
    lifts = {"tweedie": tweedie}
    with pytest.raises(TypeError, match="no exact posterior"):
        conversion_errors(AsNetwork(prior), model, y, lifts, SIGMAS)
    for bad in ({"lifts": {}}, {"sigmas": ()}):
        with pytest.raises(ValueError, match="at least one"):
            conversion_errors(prior, model, y, **({"lifts": lifts, "sigmas": SIGMAS} | bad))
    for bad in ({"lifts": [tweedie]}, {"sigmas": 0.1}):
        with pytest.raises(TypeError, match="must be a"):
            conversion_errors(prior, model, y, **({"lifts": lifts, "sigmas": SIGMAS} | bad))
    with pytest.raises(ValueError, match="sigma"):
        conversion_errors(prior, model, y, lifts, (0.0,))
    with pytest.raises(ValueError, match="one measurement"):
        conversion_errors(prior, model, y.expand(2, -1), lifts, SIGMAS)
