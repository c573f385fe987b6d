"""Every noise model: normalised, with the stated moments, score, information and draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from operator_cases import normal, rng
from scipy import stats
from torch import Tensor

import forward_models as fm
import inverse
import priors
from inverse.recipes import exact_posterior

DOUBLE = torch.float64
N = 100_000


def interval(low: float, high: float, count: int = 3000) -> tuple[Tensor, Tensor]:
    """Nodes and weights on (low, high): Gauss-Legendre on 100 equal panels."""
    from numpy.polynomial.legendre import leggauss

    nodes, weights = (torch.from_numpy(v) for v in leggauss(count // 100))
    edges = torch.linspace(low, high, 101, dtype=DOUBLE)
    half = (edges[1] - edges[0]) / 2
    y = edges[:-1, None] + half * (1 + nodes)
    return y.flatten(), (half * weights).expand(100, -1).flatten()


def atoms(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.double(), torch.ones(len(values), dtype=DOUBLE)


@dataclass(frozen=True)
class Case:
    """A noise model, clean values z (K,), and z -> all y with their weights in a sum over y.

    Attributes:
        bound: the stated information is a lower bound, not the exact value.
    """

    make: Callable[[], fm.IndependentNoise]
    z: tuple[float, ...]
    grid: Callable[[float], tuple[Tensor, Tensor]]
    bound: bool = False


def lognormal_grid(z: float) -> tuple[Tensor, Tensor]:
    u, weights = interval(-8, 8)
    y = z * (0.5 * u).exp()
    return y, weights * 0.5 * y


def ends(low: float, high: float, *, low_atom: bool = True) -> tuple[Tensor, Tensor]:
    """Nodes and weights between low and high, and the ends as atoms."""
    y, weights = interval(low, high)
    edges = torch.tensor([low, high] if low_atom else [high], dtype=DOUBLE)
    return torch.cat([y, edges]), torch.cat([weights, torch.ones(len(edges), dtype=DOUBLE)])


CASES: dict[str, Case] = {
    "gaussian": Case(
        lambda: fm.Gaussian(0.3), (-2.0, 0.0, 1.5), lambda z: interval(z - 4, z + 4)
    ),
    "poisson": Case(
        lambda: fm.Poisson(), (0.01, 0.7, 12.0, 300.0), lambda z: atoms(torch.arange(600))
    ),
    "poisson-gain": Case(
        lambda: fm.Poisson(0.05, 0.2), (-0.1, 0.0, 0.4, 3.0),
        lambda z: atoms(0.05 * torch.arange(400, dtype=DOUBLE)),
    ),
    "transmission": Case(
        lambda: fm.Transmission(200.0), (-0.5, 0.0, 1.0, 6.0), lambda z: atoms(torch.arange(600))
    ),
    "transmission-background": Case(
        lambda: fm.Transmission(50.0, 3.0), (0.0, 1.0, 8.0), lambda z: atoms(torch.arange(300))
    ),
    "rician": Case(
        lambda: fm.Rician(0.5), (-1.0, 0.0, 0.2, 4.0), lambda z: interval(0, abs(z) + 6)
    ),
    "laplace": Case(
        # Panels end at the kink.
        lambda: fm.Laplace(0.2), (-1.0, 0.0, 3.0), lambda z: interval(z - 6, z + 6)
    ),
    "lognormal": Case(lambda: fm.LogNormal(0.5), (0.1, 1.0, 40.0), lognormal_grid),
    "lognormal-unit": Case(
        lambda: fm.LogNormal(0.5, unit_mean=True), (0.1, 1.0, 40.0), lognormal_grid
    ),
    "speckle": Case(
        lambda: fm.GammaSpeckle(3.5), (0.1, 1.0, 40.0), lambda z: interval(0, 16 * z)
    ),
    "speckle-1": Case(
        lambda: fm.GammaSpeckle(1), (0.1, 1.0, 40.0), lambda z: interval(0, 40 * z)
    ),
    "poisson-gaussian": Case(
        lambda: fm.PoissonGaussian(0.5, 0.2), (0.01, 1.0, 6.0), lambda z: interval(-2, 26),
        bound=True,
    ),
    "poisson-gaussian-sharp": Case(
        lambda: fm.PoissonGaussian(1.0, 0.1, 0.5), (0.0, 3.0), lambda z: interval(-1, 25),
        bound=True,
    ),
    "poisson-gaussian-wide": Case(
        lambda: fm.PoissonGaussian(1.0, 20.0), (5.0, 300.0), lambda z: interval(-200, 600),
        bound=True,
    ),
    "heteroscedastic": Case(
        lambda: fm.HeteroscedasticGaussian(0.5, 0.2), (0.0, 1.0, 6.0),
        lambda z: interval(z - 20, z + 20),
    ),
    "quantised": Case(
        lambda: fm.Quantised(0.25, 0.1), (-0.7, 0.0, 0.12, 5.0),
        lambda z: atoms(0.25 * torch.arange(-40, 60, dtype=DOUBLE)),
    ),
    "quantised-fine": Case(
        lambda: fm.Quantised(0.02, 0.3), (-0.7, 0.0, 2.0),
        lambda z: atoms(0.02 * torch.arange(-300, 300, dtype=DOUBLE)),
    ),
    "saturated": Case(
        lambda: fm.Saturated(0.2, 0.1, 1.3), (-0.3, 0.1, 0.6, 1.25, 1.8),
        lambda z: ends(0.1, 1.3),
    ),
    "saturated-above": Case(
        lambda: fm.Saturated(0.2, -math.inf, 1.3), (-0.3, 1.25, 1.8),
        lambda z: ends(z - 3, 1.3, low_atom=False),
    ),
}  # fmt: skip

CONTINUED = [name for name in CASES if hasattr(CASES[name].make(), "_floor")]


@pytest.fixture(params=list(CASES))
def case(request):
    return CASES[request.param]


def expectations(case: Case, z: float):
    """E over y of 1, y, y^2, score, score^2, by summing over all y; and z like y."""
    noise = case.make()
    y, weights = case.grid(z)
    clean = torch.full_like(y, z)
    p = weights * noise.log_prob(y[:, None], clean[:, None]).exp()
    score = noise.score(y[:, None], clean[:, None])[:, 0]
    mean = (p * y).sum()
    values = (p.sum(), mean, (p * (y - mean) ** 2).sum(), (p * score).sum(), (p * score**2).sum())
    return noise, torch.full((1, 1), z, dtype=DOUBLE), [float(v) for v in values]


def test_normalised_with_the_stated_moments_and_information(case):
    for value in case.z:
        noise, z, (one, mean, variance, score, square) = expectations(case, value)
        assert one == pytest.approx(1, abs=1e-9)
        assert float(noise.mean(z)) == pytest.approx(mean, rel=1e-8, abs=1e-8)
        assert float(noise.variance(z)) == pytest.approx(variance, rel=1e-7, abs=1e-9)
        assert score == pytest.approx(0, abs=1e-8 * (1 + square))
        stated = float(noise.information(z))
        if case.bound:
            assert stated <= square * (1 + 1e-9)
        else:
            assert stated == pytest.approx(square, rel=1e-6, abs=1e-9)


def test_draws_have_the_stated_moments(case):
    noise = case.make()
    z = torch.tensor(case.z, dtype=DOUBLE).expand(N, -1)
    y = noise.sample(z, rng(3))
    assert y.dtype == DOUBLE
    noise.check_recorded(y)
    mean, variance = noise.mean(z[:1])[0], noise.variance(z[:1])[0]
    assert bool(((y.mean(0) - mean).abs() <= 5 * (variance / N).sqrt()).all())
    spread = (y - mean).square()
    assert bool(((spread.mean(0) - variance).abs() <= 5 * spread.std(0) / math.sqrt(N)).all())
    assert torch.equal(y, noise.sample(z, rng(3)))


def test_score_is_the_gradient(case):
    noise = case.make()
    z = torch.tensor(case.z, dtype=DOUBLE)[None]
    y = noise.sample(z.expand(5, -1), rng(1))
    z = z.expand_as(y).clone()
    if hasattr(noise, "_floor"):
        z[0] = z.min() - 5.0
    leaf = z.clone().requires_grad_()
    total = noise.log_prob(y, leaf).sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    torch.testing.assert_close(noise.score(y, z), gradient, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(noise.score(y, leaf), gradient, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        fm.IndependentNoise.score(noise, y, z), gradient, rtol=1e-9, atol=1e-9
    )
    assert torch.autograd.gradcheck(lambda v: noise.log_prob(y, v), leaf, atol=1e-4, rtol=1e-4)


def test_gaussian_has_the_exact_slope(case):
    noise = case.make()
    z = torch.tensor(case.z, dtype=DOUBLE).expand(4, -1)
    y = noise.sample(z, rng(2))
    for shift in (0.0, -3.0, 3.0):
        mean, variance = noise.gaussian(y, z + shift)
        known = variance.isfinite()
        assert bool((variance > 0).all())
        slope = torch.where(known, (mean - z - shift) / variance, 0)
        expected = torch.where(known, noise.score(y, z + shift), 0)
        torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-8)
    measured = torch.arange(len(case.z)) > 0
    mean, variance = noise.gaussian(y, z, measured)
    assert bool(torch.isinf(variance[:, 0]).all())
    assert torch.equal(mean[:, 0], z[:, 0])
    torch.testing.assert_close(mean[:, 1:], noise.gaussian(y, z)[0][:, 1:])


def test_entries_left_out_have_no_influence(case):
    noise = case.make()
    z = torch.tensor(case.z, dtype=DOUBLE).expand(3, -1)
    y = noise.sample(z, rng(2))
    measured = torch.arange(len(case.z)) > 0
    bad = y.clone()
    bad[:, 0] = math.nan
    leaf = torch.where(measured, z, -7.0).requires_grad_()
    values = noise.log_prob(bad, leaf, measured)
    torch.testing.assert_close(values, noise.log_prob(y[:, 1:], z[:, 1:]))
    (gradient,) = torch.autograd.grad(values.sum(), leaf)
    assert bool((gradient[:, 0] == 0).all())
    torch.testing.assert_close(gradient[:, 1:], noise.score(y, z)[:, 1:])


def test_single_precision(case):
    noise = case.make()
    z = torch.tensor(case.z).expand(50, -1)
    y = noise.sample(z, rng(4))
    assert y.dtype == torch.float32
    noise.check_recorded(y)
    exact = noise.log_prob(y.double(), z.double())
    torch.testing.assert_close(noise.log_prob(y, z).double(), exact, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        noise.score(y, z).double(), noise.score(y.double(), z.double()), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("name", CONTINUED)
def test_continuation_is_finite_concave_and_pushes_back(name):
    case = CASES[name]
    noise = case.make()
    floor = float(noise._floor(torch.zeros(1, 1, dtype=DOUBLE)))
    y = noise.sample(torch.tensor(case.z, dtype=DOUBLE)[None], rng(5))[:, :1].expand(400, 1)
    far = floor - torch.logspace(-6, 3, 400, dtype=DOUBLE)[:, None]
    values, scores = noise.log_prob(y, far), noise.score(y, far)
    assert bool(torch.isfinite(values).all())
    assert bool((scores.diff(dim=0) > 0).all())
    assert float(scores[-1]) > 0
    edge = torch.full((1, 1), floor, dtype=DOUBLE)
    below, above = (noise.score(y[:1], edge + h) for h in (-1e-12, 1e-12))
    torch.testing.assert_close(below, above, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        noise.log_prob(y[:1], edge - 1e-12), noise.log_prob(y[:1], edge + 1e-12)
    )


# ---- against independent densities ---------------------------------------------------------


def test_densities_equal_scipy_and_torch():
    z = torch.tensor([[0.3, 1.0, 7.0, 90.0]], dtype=DOUBLE)
    counts = torch.tensor([[0.0, 3.0, 9.0, 70.0]], dtype=DOUBLE)
    y = torch.tensor([[0.2, 1.4, 6.0, 95.0]], dtype=DOUBLE)

    def equal(value, expected):
        torch.testing.assert_close(value, torch.as_tensor(expected).reshape(1, -1).sum(1))

    n, r = counts.numpy(), z.numpy()
    equal(fm.Poisson(0.1, 0.5).log_prob(0.1 * counts, z), stats.poisson.logpmf(n, (r + 0.5) / 0.1))
    rate = 40 * torch.exp(-z / 10).numpy() + 2
    equal(fm.Transmission(40.0, 2.0).log_prob(counts, z / 10), stats.poisson.logpmf(n, rate))
    expected = stats.rice.logpdf(y.numpy(), r / 0.8, scale=0.8)
    equal(fm.Rician(0.8).log_prob(y, z), expected)
    equal(fm.Rician(0.8).log_prob(y, -z), expected)
    turned = z * torch.exp(torch.tensor(0.7j, dtype=torch.complex128))
    equal(fm.Rician(0.8).log_prob(y, turned), expected)
    distributions = torch.distributions
    equal(fm.Laplace(0.4).log_prob(y, z), distributions.Laplace(z, 0.4).log_prob(y))
    equal(fm.LogNormal(0.4).log_prob(y, z), distributions.LogNormal(z.log(), 0.4).log_prob(y))
    equal(fm.GammaSpeckle(4.5).log_prob(y, z), distributions.Gamma(4.5, 4.5 / z).log_prob(y))
    equal(fm.Gaussian(0.4).log_prob(y, z), distributions.Normal(z, 0.4).log_prob(y))


@pytest.mark.parametrize("rate", [1e2, 1e5, 1e7])
def test_large_counts_in_single_precision(rate):
    noise = fm.Poisson()
    z = torch.full((1, 200), rate)
    y = noise.sample(z, rng())
    values = noise._log_prob(y, z).double()
    expected = stats.poisson.logpmf(y.double().numpy(), rate)
    torch.testing.assert_close(values, torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def test_thick_objects_underflow_to_a_finite_density():
    noise = fm.Transmission(1e4)
    z = torch.tensor([[120.0]]).requires_grad_()
    value = noise.log_prob(torch.tensor([[5.0]]), z)
    expected = 5 * (math.log(1e4) - 120) - math.lgamma(6)
    assert float(value.detach()) == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    assert float(gradient) == pytest.approx(-5, rel=1e-5)


def test_parameters_for_each_entry():
    scale = torch.tensor([[0.1, 0.5, 2.0]])
    z, counts = torch.rand(4, 1, 3, generator=rng()).double() + 1, torch.ones(4, 1, 3).double()
    for make, y in (
        (fm.Laplace, counts), (fm.LogNormal, counts), (fm.Gaussian, counts), (fm.Rician, counts),
        (lambda s: fm.GammaSpeckle(1 + s), counts), (fm.Poisson, counts * scale),
        (lambda s: fm.Poisson(1.0, s), counts), (fm.Transmission, counts),
    ):  # fmt: skip
        together = make(scale).log_prob(y, z)
        alone = [make(float(s)).log_prob(y[..., i], z[..., i]) for i, s in enumerate(scale[0])]
        torch.testing.assert_close(together, torch.stack(alone).sum(0), rtol=1e-6, atol=1e-6)
        with pytest.raises(ValueError, match="has shape"):
            make(torch.ones(3)).log_prob(y, z)


# ---- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        fm.Poisson, fm.Transmission, fm.Rician, fm.Laplace, fm.LogNormal, fm.GammaSpeckle,
        lambda v: fm.Poisson(floor=v), lambda v: fm.LogNormal(0.1, floor=v),
    ],
)  # fmt: skip
def test_impossible_parameters(make):
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"must be positive|at least 1|must be"):
            make(value)
    for value in ("1", True, None, torch.tensor(1)):
        with pytest.raises(TypeError):
            make(value)


@pytest.mark.parametrize(
    ("noise", "y"),
    [
        (fm.Poisson(), -1.0), (fm.Poisson(), 0.5), (fm.Poisson(0.1), 0.25),
        (fm.Transmission(10.0), 1.5), (fm.Rician(1.0), 0.0), (fm.LogNormal(1.0), -2.0),
        (fm.GammaSpeckle(2), 0.0),
    ],
)  # fmt: skip
def test_impossible_recordings(noise, y):
    model = fm.Observation(fm.Identity(), noise)
    value = torch.ones(2, 1, 3, 3)
    value[1, 0, 2, 1] = y
    with pytest.raises(
        ValueError, match=r"1 impossible entries of 18, the first at.*\(1, 0, 2, 1\)"
    ):
        model.check_measurement(value)


@pytest.mark.parametrize(
    ("noise", "z"),
    [
        (fm.Poisson(), -0.1), (fm.Poisson(1.0, 2.0), -2.1), (fm.Transmission(9.0), -1.5),
        (fm.LogNormal(1.0), 0.0), (fm.GammaSpeckle(2), -1.0),
    ],
)  # fmt: skip
def test_impossible_clean_values(noise, z):
    model = fm.Observation(fm.Identity(), noise)
    x = torch.ones(2, 1, 3, 3)
    x[1, 0, 2, 1] = z
    with pytest.raises(
        ValueError, match=r"1 impossible entries of 18, the first at.*\(1, 0, 2, 1\)"
    ):
        model.simulate(x)
    assert bool(torch.isfinite(model.log_likelihood(torch.ones(1, 1, 3, 3), x)).all())


def test_counts_may_be_rounded_as_floats_are():
    gain = 1 / 37
    counts = torch.arange(5000.0)
    for dtype in (torch.float32, DOUBLE):
        fm.Poisson(gain).check_recorded((counts.to(dtype) * gain)[None])
        fm.Poisson(gain).check_recorded((counts.to(dtype) / 37)[None])


# ---- sums over counts, levels and classes -------------------------------------------------


@pytest.mark.parametrize(
    ("gain", "sigma", "z"),
    [
        (1.0, 0.05, 3.0), (1.0, 1.0, 0.2), (0.1, 0.3, 4.0), (1.0, 11.0, 60.0), (1.0, 13.0, 50.0),
        (1.0, 15.0, 130.0), (1.0, 40.0, 2.0), (1.0, 100.0, 3000.0), (2.0, 9.0, 500.0),
    ],
)  # fmt: skip
def test_poisson_gaussian_equals_the_whole_sum(gain, sigma, z):
    noise = fm.PoissonGaussian(gain, sigma)
    spread = math.sqrt(gain * z + sigma**2)
    y = torch.linspace(z - 6 * spread, z + 6 * spread, 41, dtype=DOUBLE)[:, None]
    n = torch.arange(0, int(z / gain + 40 * spread / gain + 100), dtype=DOUBLE)
    terms = stats.poisson.logpmf(n.numpy(), z / gain)
    terms = terms + stats.norm.logpdf(y.numpy(), gain * n.numpy(), sigma)
    expected = torch.from_numpy(terms).logsumexp(1)
    values = noise.log_prob(y, torch.full_like(y, z))
    torch.testing.assert_close(values, expected, rtol=1e-11, atol=1e-11)


def test_poisson_gaussian_information_lies_between_its_bounds():
    noise, grid = fm.PoissonGaussian(0.5, 0.2), interval(-2, 26)
    for z in (0.05, 1.0, 6.0):
        case = Case(lambda: noise, (z,), lambda _: grid)
        square = expectations(case, z)[2][4]
        assert 1 / (0.5 * z + 0.04) < square < 1 / (0.5 * z)
    # Both bounds meet where counts are many.
    many = Case(lambda: fm.PoissonGaussian(1.0, 20.0), (300.0,), lambda _: interval(-200, 800))
    noise, z, (*_, square) = expectations(many, 300.0)
    assert float(noise.information(z)) == pytest.approx(square, rel=0.01)


def test_quantised_and_saturated_equal_scipy():
    z = torch.tensor([[0.3, -1.2, 2.0, 0.5]], dtype=DOUBLE)
    y = torch.tensor([[0.5, -1.0, 0.5, 0.5]], dtype=DOUBLE)
    for step, sigma in ((0.5, 0.2), (0.5, 3.0), (0.1, 0.2), (0.5, 0.01)):
        upper, lower = (((y + s * step / 2 - z) / sigma).numpy() for s in (1, -1))
        expected = torch.from_numpy(stats.norm.logcdf(upper) + 0.0)
        expected = expected + torch.log1p(-torch.from_numpy(
            stats.norm.logcdf(lower) - stats.norm.logcdf(upper)).exp())  # fmt: skip
        usable = expected > -300
        values = fm.Quantised(step, sigma)._log_prob(y, z)
        torch.testing.assert_close(values[usable], expected[usable], rtol=1e-8, atol=1e-8)
    noise = fm.Saturated(0.4, -1.0, 0.5)
    y = torch.tensor([[-1.0, 0.5, 0.2, -0.3]], dtype=DOUBLE)
    expected = [
        stats.norm.logcdf(-1.0, 0.3, 0.4), stats.norm.logsf(0.5, -1.2, 0.4),
        stats.norm.logpdf(0.2, 2.0, 0.4), stats.norm.logpdf(-0.3, 0.5, 0.4),
    ]  # fmt: skip
    torch.testing.assert_close(noise._log_prob(y, z)[0], torch.tensor(expected, dtype=DOUBLE))
    kept = torch.tensor([[-1.0, 0.5, 0.2, -0.3]]).double()
    assert torch.equal(noise.check_recorded(kept), kept)
    rounded = torch.tensor([[0.1, 1.3]]).double()
    edges = fm.Saturated(0.4, 0.1, 1.3)
    exact = torch.tensor([[0.1, 1.3]], dtype=DOUBLE)
    same = edges._log_prob(edges.check_recorded(rounded), exact)
    torch.testing.assert_close(same, edges._log_prob(exact, exact))


@pytest.mark.parametrize("name", ["quantised", "quantised-fine", "saturated", "saturated-above"])
def test_own_curvature_where_log_p_is_concave(name):
    noise = CASES[name].make()
    z = torch.linspace(-2, 3, 23, dtype=DOUBLE)[None].expand(3, -1)
    y = noise.sample(torch.tensor([[0.2], [0.9], [1.6]], dtype=DOUBLE).expand(3, 23), rng())
    leaf = z.clone().requires_grad_()
    (second,) = torch.autograd.grad(noise.score(y, leaf).sum(), leaf)
    torch.testing.assert_close(noise.curvature(y, z), -second, rtol=1e-5, atol=1e-5)


def test_far_tails_in_single_precision():
    """A denoised image may be hundreds of sigma from y: values and slopes stay right."""
    z = torch.tensor([[-40.0, -3.0, 3.0, 40.0]])
    y = torch.zeros(1, 4)
    for noise in (fm.Quantised(0.5, 0.1), fm.Quantised(0.02, 0.1), fm.Saturated(0.1, 0.0, 1.0)):
        values, score = noise._log_prob(y, z).double(), noise.score(y, z).double()
        exact = noise._log_prob(y.double(), z.double()), noise.score(y.double(), z.double())
        torch.testing.assert_close(values, exact[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(score, exact[1], rtol=1e-4, atol=1e-4)
        assert bool(torch.isfinite(score).all())
        leaf = z.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(noise.log_prob(y, leaf).sum(), leaf)
        torch.testing.assert_close(gradient.double(), exact[1], rtol=1e-3, atol=1e-4)


def test_categorical():
    noise = fm.Categorical(4)
    z = normal(2, 4, 3, 1)
    every = torch.stack([torch.full((2, 3, 1), k) for k in range(4)])
    single = torch.stack([
        noise.log_prob(k[:, i : i + 1], z[:, :, i : i + 1]) for k in every for i in range(3)
    ]).reshape(4, 3, 2)  # fmt: skip
    torch.testing.assert_close(single.exp().sum(0), torch.ones(3, 2, dtype=DOUBLE))
    expected = torch.distributions.Categorical(logits=z.movedim(1, -1))
    y = every[2]
    torch.testing.assert_close(noise.log_prob(y, z), expected.log_prob(y).sum((1, 2)))
    torch.testing.assert_close(noise.log_prob(y[:1], z), expected.log_prob(y).sum((1, 2)))
    draws = noise.sample(z[:1].expand(N, 4, 3, 1), rng())
    assert draws.dtype == torch.int64
    for k in range(4):
        p = z[:1].softmax(1)[0, k]
        frequency = (draws == k).double().mean(0)
        assert bool(((frequency - p).abs() < 5 * (p * (1 - p) / N).sqrt()).all())
    error = draws.double().mean(0) - noise.mean(z[:1])[0]
    assert bool((error.abs() < 5 * (noise.variance(z[:1])[0] / N).sqrt()).all())
    model = fm.Observation(fm.Identity((4, 3, 1)), noise)
    assert model.measurement_shape == (3, 1)
    assert fm.Observation(fm.Blur(torch.ones(1, 1)), noise).measurement_ndim == 2
    with pytest.raises(
        ValueError, match=r"1 impossible entries of 6, the first .*\(1, 2, 0\).*0 to 3"
    ):
        model.check_measurement(torch.tensor([0, 1, 2, 3, 0, 4]).reshape(2, 3, 1))
    with pytest.raises(TypeError, match="int64"):
        model.check_measurement(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="4 classes"):
        fm.Observation(fm.Identity((3, 3, 1)), noise)
    with pytest.raises(ValueError, match="whole measurements"):
        fm.Observation(fm.Inpainting(torch.eye(3), channels=4), noise)
    for bad in (1, 2.0, True):
        with pytest.raises(ValueError, match="classes"):
            fm.Categorical(bad)


@pytest.mark.parametrize("name", list(CASES))
def test_functional_transforms(name):
    noise = CASES[name].make()
    z = torch.tensor(CASES[name].z, dtype=DOUBLE)[None].repeat(3, 1)
    y, v = noise.sample(z, rng(1)), normal(*z.shape)
    score = noise.score(y, z)
    _, slope = torch.func.jvp(lambda t: noise.log_prob(y, t), (z,), (v,))
    torch.testing.assert_close(slope, (score * v).sum(1))
    pull = torch.func.vjp(lambda t: noise.log_prob(y, t), z)[1]
    torch.testing.assert_close(pull(torch.ones(3, dtype=DOUBLE))[0], score)
    each = torch.func.vmap(lambda a, b: noise.log_prob(a[None], b[None])[0])(y, z)
    torch.testing.assert_close(each, noise.log_prob(y, z))


# ---- observations --------------------------------------------------------------------------


def test_unmeasured_entries_of_an_observation_are_no_data():
    mask = torch.tensor([True, False, True])
    for name, case in CASES.items():
        noise = case.make()
        model = fm.Observation(fm.Inpainting(mask), noise)
        x = torch.full((4, 3), case.z[-1], dtype=DOUBLE)
        y = model.simulate(x, rng())
        assert bool((y[:, 1] == 0).all()), name
        other = y.clone()
        other[:, 1] = math.nan
        leaf = x.clone().requires_grad_()
        value = model.log_likelihood(other, leaf)
        assert torch.equal(value.detach(), model.log_likelihood(y, x)), name
        whole = fm.Observation(fm.Identity(), noise).log_likelihood(y[:, ::2], x[:, ::2])
        torch.testing.assert_close(value, whole)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        assert bool(torch.isfinite(gradient).all()), name
        mean, variance = model.gaussian(y, x)
        assert bool(torch.isinf(variance[:, 1]).all())
        assert bool((mean[:, 1] == 0).all())


def test_fields_of_an_observation():
    gaussian = fm.Observation(fm.Identity(), fm.Gaussian(0.1))
    x = torch.ones(1, 4)
    with pytest.raises(TypeError, match="complex"):
        gaussian.log_likelihood(x.to(torch.complex64), x)
    with pytest.raises(TypeError, match="complex"):
        gaussian.log_likelihood(x, x.to(torch.complex64))
    real = fm.Observation(fm.MatrixOperator(normal(3, 4)), fm.Gaussian(0.1))
    assert real.measurement_field == "real"
    rician = fm.Observation(fm.Identity(), fm.Rician(0.1))
    y = rician.simulate(x.to(torch.complex64), rng())
    assert y.dtype == torch.float32
    assert rician.log_likelihood(y, x.to(torch.complex64)).shape == (1,)
    with pytest.raises(ValueError, match="complex"):
        fm.Observation(fm.MatrixOperator(normal(3, 4, dtype=torch.complex128)), fm.Poisson())


def test_complex_information_is_the_mean_over_both_parts():
    z = torch.tensor([[0.4 + 0.3j, -1.0 + 2.0j]], dtype=torch.complex128).expand(N, -1)
    for noise in (fm.Rician(0.5), fm.Gaussian(0.5)):
        y = noise.sample(z, rng())
        score = noise.score(y, z)
        half = score.abs().square() / 2
        assert bool(((half.mean(0) - noise.information(z[:1])[0]).abs()
                     < 5 * half.std(0) / math.sqrt(N)).all())  # fmt: skip
        assert bool((score.mean(0).abs() < 5 * score.abs().std(0) / math.sqrt(N) + 0.02).all())
        leaf = z[:5].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(noise.log_prob(y[:5], leaf).sum(), leaf)
        torch.testing.assert_close(score[:5], gradient)


# ---- posteriors ----------------------------------------------------------------------------


def small_prior(size: int = 4) -> priors.Gaussian:
    root = normal(size, size, seed=3) / 4
    covariance = root @ root.T + 0.02 * torch.eye(size, dtype=DOUBLE)
    return priors.Gaussian(torch.full((size,), 1.5, dtype=DOUBLE), covariance)


@pytest.mark.parametrize("scale", [0.3, torch.tensor([0.1, 0.4, 1.0])])
def test_gaussian_over_a_linear_operator_has_the_exact_posterior(scale):
    prior, A = small_prior(), fm.MatrixOperator(normal(3, 4))
    y = normal(1, 3, seed=2)
    expected = prior.condition(fm.LinearGaussian(A, scale), y)
    posterior = inverse.condition(prior, fm.Observation(A, fm.Gaussian(scale)), y)
    x = normal(2, 4, seed=6)
    torch.testing.assert_close(exact_posterior(posterior).denoise(x, 0.5), expected.denoise(x, 0.5))


def test_whitening_gives_the_exact_posterior():
    prior, A = small_prior(), fm.MatrixOperator(normal(3, 4))
    root = normal(3, 3, seed=8)
    R = root @ root.T + 0.1 * torch.eye(3, dtype=DOUBLE)
    model, y = fm.Observation(A, fm.CorrelatedGaussian(R)), normal(1, 3, seed=2)
    exact = exact_posterior(inverse.condition(prior, model, y))
    matrix = A.matrix
    root = normal(4, 4, seed=3) / 4
    C = root @ root.T + 0.02 * torch.eye(4, dtype=DOUBLE)
    gain = C @ matrix.T @ torch.linalg.inv(matrix @ C @ matrix.T + R)
    mean = 1.5 + (y - 1.5 * matrix.sum(1)) @ gain.T
    covariance = C - gain @ matrix @ C
    eye = torch.eye(4, dtype=DOUBLE)
    x, s = normal(2, 4, seed=6), 0.5
    denoised = mean + (x - mean) @ (covariance @ torch.linalg.inv(covariance + s**2 * eye)).T
    torch.testing.assert_close(exact.denoise(x, s), denoised)
    z = A(x)
    expected = torch.distributions.MultivariateNormal(z, R).log_prob(y)
    torch.testing.assert_close(model.log_likelihood(y, x), expected)
    draws = model.simulate(x[:1].expand(N, -1), rng()) - A(x[:1])
    error = (draws.T @ draws / N - R).abs()
    limit = 5 * ((R.diag()[:, None] * R.diag() + R**2) / N).sqrt()
    assert bool((error < limit).all())
    torch.testing.assert_close(model.noise.variance(z), R.diag().expand(2, -1))


# Noise that leaves a plug-in of 20 steps stable: information at most near 1 / (prior variance).
MODERATE = {
    "gaussian": fm.Gaussian(0.6),
    "poisson": fm.Poisson(0.2),
    "poisson-gaussian": fm.PoissonGaussian(0.2, 0.3),
    "heteroscedastic": fm.HeteroscedasticGaussian(0.2, 0.3),
    "transmission": fm.Transmission(20.0, 1.0),
    "rician": fm.Rician(0.6),
    "laplace": fm.Laplace(0.4),
    "lognormal": fm.LogNormal(0.4),
    "speckle": fm.GammaSpeckle(5),
    "quantised": fm.Quantised(0.25, 0.5),
    "saturated": fm.Saturated(0.5, 0.0, 2.0),
}


@pytest.mark.parametrize("name", list(MODERATE))
def test_sampling_moves_towards_the_data(name):
    """A few steps of guidance: finite, and a better likelihood than draws of the prior have."""
    prior, model = small_prior(), fm.Observation(fm.Identity(), MODERATE[name])
    truth = torch.tensor([[0.5, 2.4, 1.1, 1.9]], dtype=DOUBLE)
    y = model.simulate(truth, rng(2))
    posterior = inverse.condition(prior, model, y)
    samples = inverse.sample(posterior, n=2, steps=20, method="dps", seed=0)
    assert bool(torch.isfinite(samples.x).all())
    many = inverse.sample(posterior, n=64, steps=20, method="dps", seed=1).x
    unconditional = inverse.sample(prior, n=64, seed=1).x
    fitted, unfitted = (model.log_likelihood(y, x).mean() for x in (many, unconditional))
    assert float(fitted) > float(unfitted)


def test_a_class_map_guides_its_logits():
    prior = priors.Gaussian(torch.zeros(3, 2, 2, dtype=DOUBLE), 1.0)
    model = fm.Observation(fm.Identity((3, 2, 2)), fm.Categorical(3))
    y = torch.tensor([[[0, 1], [2, 2]]])
    samples = inverse.sample(inverse.condition(prior, model, y), n=64, steps=20, seed=0)
    hit = (samples.x.argmax(1) == y).double().mean()
    assert float(hit) > 0.45


# ---- low-dose CT -----------------------------------------------------------------------------


def test_affine():
    f = fm.Affine(2.0, -0.5)
    x = normal(2, 1, 4, 3)
    assert torch.equal(f(x), 2 * x - 0.5)
    chain = fm.MatrixOperator(normal(3, 12), event_shape=(1, 4, 3)) @ f
    assert chain.event_shape == (1, 4, 3)
    assert chain.input_shape((3,)) == (1, 4, 3)
    for bad in (0, math.nan):
        with pytest.raises(ValueError, match="scale"):
            fm.Affine(bad, 1.0)
    with pytest.raises(TypeError, match="shift"):
        fm.Affine(1.0, x)


def test_affine_gaussian_observations_are_linear_gaussian():
    A = fm.MatrixOperator(normal(3, 4))
    x, y = normal(5, 4, seed=1), normal(1, 3, seed=2)
    root = normal(3, 3, seed=4)
    f = fm.Affine(0.5, 2.0)
    for operator in (A @ f, f @ A, f @ (A @ f), A @ (f @ f)):
        for noise in (fm.Gaussian(0.3), fm.CorrelatedGaussian(root @ root.T)):
            model = fm.Observation(operator, noise)
            linear, moved = model.linear_gaussian(y)
            difference = linear.log_likelihood(moved, x) - model.log_likelihood(y, x)
            torch.testing.assert_close(difference, difference[:1].expand(5), atol=1e-9, rtol=0)


def test_low_dose_ct_in_hounsfield_units():
    A = fm.Tomography((9, 7), [0, 40.0, 90, 130], pixel_spacing=8.0)
    hu = 200 * normal(3, 1, 9, 7)
    projector = A @ fm.attenuation_operator()
    torch.testing.assert_close(projector(hu), A(fm.hounsfield_to_attenuation(hu)))
    model = fm.Observation(projector, fm.Transmission(1e6, 20.0))
    assert model.event_shape == (1, 9, 7)
    counts = model.simulate(hu[:1], rng())
    linear, p = fm.log_transmission(projector, counts, 1e6, 20.0)
    whitened = linear.residual(p, hu[:1]) / linear.sigma
    rays = whitened.numel()
    assert abs(float(whitened.square().mean()) - 1) < 5 * math.sqrt(2 / rays)
    expected, factor = fm.hounsfield_sinogram(A, ((counts - 20) / 1e6).log().neg())
    torch.testing.assert_close(p * factor, expected)
    # With many counts both densities have the same shape around the truth.
    steps = hu[:1] + 3 * normal(4, 1, 9, 7, seed=5)
    gaussian = linear.log_likelihood(p, steps) - linear.log_likelihood(p, hu[:1])
    poisson = model.log_likelihood(counts, steps) - model.log_likelihood(counts, hu[:1])
    torch.testing.assert_close(gaussian, poisson, rtol=0.02, atol=0.02)


def test_log_transmission_of_empty_rays():
    counts = torch.tensor([[4.0, 0.0, 1.0]])
    A = fm.MatrixOperator(normal(3, 4))
    with pytest.raises(ValueError, match=r"1 impossible entries of 3, the first at index \(0, 1\)"):
        fm.log_transmission(A, counts, 10.0)
    model, p = fm.log_transmission(A, counts, 10.0, least=0.5)
    torch.testing.assert_close(p, (10 / torch.tensor([[4.0, 0.5, 1.0]])).log())
    torch.testing.assert_close(model.sigma, torch.tensor([0.25, 2.0, 1.0]).sqrt())
    with pytest.raises(ValueError, match="2 measurements"):
        fm.log_transmission(A, counts.expand(2, 3), 10.0)
    with pytest.raises(ValueError, match="not affine"):
        fm.log_transmission(Square(), counts, 10.0)


class Square(fm.Operator):
    def _apply(self, x):
        return x.square()
