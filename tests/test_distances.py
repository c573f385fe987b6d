"""Sliced distances, mode weights and the kernel discrepancy: closed forms, nulls, power."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from matplotlib.figure import Figure
from problems import DOUBLE, problem
from scipy.stats import binom, wasserstein_distance

import inverse
import priors
from forward_models import MatrixOperator
from inverse.diagnostics.estimate import Null
from inverse.diagnostics.kernel import kernel_discrepancy, kernel_width
from inverse.diagnostics.modes import mode_weights
from inverse.diagnostics.sliced import Slices, sliced_wasserstein

WEIGHTS = torch.tensor([0.5, 0.25, 0.15, 0.1], dtype=DOUBLE)


def source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def truth(
    variance: float = 0.5, weights: torch.Tensor = WEIGHTS, spread: float = 0.7
) -> priors.Mixture:
    means = spread * torch.randn(4, 8, generator=source(0), dtype=DOUBLE)
    return priors.Mixture(means, variance, weights)


LESS = torch.tensor([0.4, 0.35, 0.15, 0.1], dtype=DOUBLE)
DROPPED = torch.tensor([0.55, 0.25, 0.2, 0.0], dtype=DOUBLE)
FAULTS = {
    "variance x 1.2": truth(0.6),
    "weight .4 for .5": truth(weights=LESS),
    "dropped mode": truth(weights=DROPPED),
    "half the width": truth(0.25),
}


def normal_quantiles(n: int) -> torch.Tensor:
    return torch.special.ndtri((torch.arange(n, dtype=DOUBLE) + 0.5) / n)[:, None]


@pytest.mark.parametrize(("shift", "scale"), [(0.7, 1.0), (0.0, 1.5), (-0.4, 0.5)])
def test_distances_between_gaussians_in_one_dimension(shift, scale):
    """W_2^2 = m^2 + (1 - s)^2; W_1 = E|m + (s - 1) z|, of a folded normal law."""
    z = normal_quantiles(20_000)
    found = Slices(z, projections=3).to(scale * z + shift)
    m, s = abs(shift), abs(scale - 1)
    folded = m
    if s:
        folded = s * math.sqrt(2 / math.pi) * math.exp(-(m**2) / (2 * s**2))
        folded += m * math.erf(m / (s * math.sqrt(2)))
    assert found.w1.tolist() == pytest.approx([folded] * 3, rel=2e-3)
    assert found.w2.tolist() == pytest.approx([math.hypot(shift, scale - 1)] * 3, rel=2e-3)


def test_a_shift_moves_each_projection_by_its_part():
    x = torch.randn(300, 5, generator=source(1), dtype=DOUBLE)
    m = torch.tensor([0.3, -1.0, 0.0, 2.0, 0.1], dtype=DOUBLE)
    slices = Slices(x, projections=40)
    found = slices.to(x + m)
    expected = (slices.directions @ m).abs()
    torch.testing.assert_close(found.w1, expected)
    torch.testing.assert_close(found.w2, expected)
    torch.testing.assert_close(slices.directions.norm(dim=1), torch.ones(40, dtype=DOUBLE))
    result = sliced_wasserstein(x + m, x, projections=40)
    worst = expected.argmax()
    assert result.largest.value == pytest.approx(float(expected[worst]))
    assert torch.equal(result.direction, slices.directions[worst])


@pytest.mark.parametrize("sizes", [(100, 200), (150, 100), (70, 110)])
def test_weighted_w1_is_that_of_scipy(sizes):
    g = source(2)
    x, other = (torch.randn(n, 3, generator=g, dtype=DOUBLE) for n in sizes)
    w, v = (torch.rand(n, generator=g, dtype=DOUBLE) for n in sizes)
    for weights, others in ((None, None), (w, None), (None, v), (w, v)):
        slices = Slices(other, others, projections=7)
        found = slices.to(x, weights).w1
        for theta, value in zip(slices.directions, found.tolist(), strict=True):
            expected = wasserstein_distance(x @ theta, other @ theta, weights, others)
            assert value == pytest.approx(expected, abs=1e-12)


def test_whole_weights_count_as_repeated_samples():
    g = source(3)
    x, other = (torch.randn(60, 4, generator=g, dtype=DOUBLE) for _ in range(2))
    counts = torch.randint(0, 4, (60,), generator=g)
    slices = Slices(other, projections=9)
    repeated, weighted = slices.to(x.repeat_interleave(counts, 0)), slices.to(x, counts.double())
    torch.testing.assert_close(weighted.w1, repeated.w1)
    torch.testing.assert_close(weighted.w2, repeated.w2)
    assert float(slices.to(other, torch.full((60,), 0.3)).w2.max()) < 1e-7


@pytest.fixture(scope="module")
def compared():
    """Two exact sets of 2000 draws, with the null of such sets."""
    t, g = truth(), source(4)
    x, other = t.sample(2000, g), t.sample(2000, g)
    return other, sliced_wasserstein(x, other, projections=100, null=t.sample, replicates=200)


def test_exact_sets_are_within_the_null_and_faulty_ones_are_not(compared):
    other, exact = compared
    for figure in (exact.w1, exact.w2, exact.largest):
        assert figure.null is not None
        assert figure.p_value > 0.005
        assert figure.null.quantile(0.1) < figure.null.median < figure.null.quantile(0.9)
    limit = exact.w2.null.quantile(0.995)
    slices = Slices(other, projections=100)
    for name, fault in FAULTS.items():
        draws = (slices.to(fault.sample(2000, source(seed))).figures()[1] for seed in range(5))
        caught = sum(float(value) > limit for value in draws)
        assert caught == 5, name


def test_false_alarms_are_as_rare_as_the_null_says(compared):
    _, exact = compared
    t, g, alarms = truth(), source(6), 0
    for _ in range(40):
        other = Slices(t.sample(2000, g), projections=100)
        alarms += exact.w2.null.p_value(float(other.to(t.sample(2000, g)).figures()[1])) <= 0.1
    assert alarms <= binom.isf(1e-4, 40, 0.12)


def test_permutations_give_the_null_of_one_law():
    g = source(7)
    x, other = (torch.randn(400, 3, generator=g, dtype=DOUBLE) for _ in range(2))
    same = sliced_wasserstein(x, other, projections=20, null="permutation", replicates=60)
    apart = sliced_wasserstein(1.5 * x, other, projections=20, null="permutation", replicates=60)
    assert same.w2.p_value > 0.02
    assert apart.w2.p_value == 1 / 61
    with pytest.raises(ValueError, match="cannot be permuted"):
        sliced_wasserstein(x, other, weights=torch.ones(400), null="permutation")


def test_weights_repair_what_they_are_meant_to():
    """Draws of a law twice as wide, weighted to be the target's, and the same without weights."""
    target = priors.Gaussian(torch.zeros(2, dtype=DOUBLE), 1.0)
    wide = priors.Gaussian(torch.zeros(2, dtype=DOUBLE), 2.0)
    g = source(8)
    x, other = wide.sample(1500, g), target.sample(1500, g)
    w = (target.log_density(x) - wide.log_density(x)).exp()
    options = {"projections": 20, "null": target.sample, "replicates": 60}
    weighted = sliced_wasserstein(x, other, weights=w, **options)
    assert weighted.w2.p_value > 0.02
    assert weighted.sizes[0] == pytest.approx(float(w.sum() ** 2 / w.square().sum()))
    assert sliced_wasserstein(x, other, **options).w2.p_value == 1 / 61
    assert kernel_discrepancy(x, target, weights=w).squared.p_value > 0.01
    assert kernel_discrepancy(x, target).squared.p_value < 0.01


@pytest.mark.parametrize("weighted", [False, True])
def test_errors_are_the_spread_over_repetitions(weighted):
    g = source(9)
    found = []
    for _ in range(50):
        x, other = (torch.randn(120, 3, generator=g, dtype=DOUBLE) for _ in range(2))
        w = torch.rand(120, generator=g, dtype=DOUBLE) if weighted else None
        found.append(sliced_wasserstein(x + 1, other, weights=w, projections=20))
    for name in ("w1", "w2", "largest"):
        values = torch.tensor([getattr(f, name).value for f in found])
        errors = torch.tensor([getattr(f, name).error for f in found])
        assert 0.75 < float(errors.square().mean().sqrt() / values.std()) < 1.35, name


def test_modes_are_weighed_as_by_the_prior():
    """p(y | x) is common to all components: posterior responsibilities are the prior's."""
    _, model, y, _ = problem()
    prior = priors.Mixture(torch.randn(3, 6, generator=source(10), dtype=DOUBLE), 0.4,
                           torch.tensor([0.2, 0.5, 0.3], dtype=DOUBLE))  # fmt: skip
    posterior = prior.condition(model, y)
    x = posterior.sample(300, source(11))
    w = torch.rand(300, generator=source(12), dtype=DOUBLE)
    found = mode_weights(x, posterior, weights=w, replicates=20)
    expected = (w / w.sum()) @ prior.responsibilities(x, 0.0)
    torch.testing.assert_close(found.found, expected, rtol=1e-9, atol=1e-9)
    tv = float((expected - posterior.weights).abs().sum() / 2)
    assert found.variation.value == pytest.approx(tv, rel=1e-8)


def test_mode_weights_of_exact_and_of_faulty_samples():
    t = truth(1.0, spread=2.0)
    exact = mode_weights(t.sample(1000, source(13)), t)
    assert exact.variation.p_value > 0.01
    assert float(exact.deviations.abs().max()) < 5
    for weights in (LESS, DROPPED):
        faulty = truth(1.0, weights, 2.0)
        found = mode_weights(faulty.sample(1000, source(14)), t)
        assert found.variation.p_value == 1 / 201
        assert float(found.deviations.abs().max()) > 5
        assert found.variation.value == pytest.approx(0.1, abs=4 * found.variation.error)
    wide = truth(1.2, spread=2.0)
    x = wide.sample(4000, source(15))
    w = (t.log_density(x) - wide.log_density(x)).exp()
    assert mode_weights(x, t, weights=w).variation.p_value > 0.01


def test_errors_of_mode_weights_are_their_spread():
    t, fault, g = truth(1.0, spread=2.0), truth(1.0, LESS, 2.0), source(16)
    found = [mode_weights(fault.sample(400, g), t, replicates=2) for _ in range(80)]
    values = torch.tensor([f.variation.value for f in found])
    errors = torch.tensor([f.variation.error for f in found])
    assert 0.75 < float(errors.mean() / values.std()) < 1.35
    each = torch.stack([f.found for f in found]).std(0)
    assert float((torch.stack([f.errors for f in found]).mean(0) / each - 1).abs().max()) < 0.35


def test_the_kernel_is_that_of_automatic_derivatives():
    t, c = truth(), 0.7
    x = t.sample(6, source(17))
    sigma, w = 0.05, torch.tensor([0.3, 0.1, 0.2, 0.1, 0.2, 0.1], dtype=DOUBLE)
    found = kernel_discrepancy(x, t, sigma=sigma, width=c, weights=w, replicates=5, seed=3)
    noised = x + sigma * torch.randn(6, 8, generator=source(3), dtype=DOUBLE)

    def k(a, b):
        return (c**2 + (a - b).square().sum()).rsqrt()

    u = torch.zeros(6, 6, dtype=DOUBLE)
    for i in range(6):
        for j in range(6):
            a, b = (noised[n].clone().requires_grad_() for n in (i, j))
            sa, sb = (t.score(z.detach()[None], sigma)[0] for z in (a, b))
            da, db = torch.autograd.grad(k(a, b), (a, b), create_graph=True)
            trace = sum(torch.autograd.grad(da[n], b, retain_graph=True)[0][n] for n in range(8))
            u[i, j] = ((sa @ sb) * k(a, b) + sa @ db + sb @ da + trace).detach()
    signed = w @ u @ w
    off = signed - w.square() @ u.diagonal()
    assert found.squared.value == pytest.approx(float(off / (1 - w.square().sum())), rel=1e-9)
    assert found.reported == pytest.approx(float((signed / 8).sqrt()), rel=1e-9)


def test_the_squared_discrepancy_of_exact_samples_has_mean_zero():
    one, g = priors.Gaussian(torch.zeros(3, dtype=DOUBLE), 1.0), source(18)
    found = [kernel_discrepancy(one.sample(100, g), one, width=0.8, replicates=50, seed=n)
             for n in range(150)]  # fmt: skip
    values = torch.tensor([f.squared.value for f in found])
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(150)
    # With pairs of a sample with itself: E u(x, x) / n = (D / c + D / c^3) / n.
    whole = torch.tensor([f.reported**2 for f in found]) * 100
    expected = 1 / 0.8 + 1 / 0.8**3
    assert abs(float(whole.mean()) - expected) < 4 * float(whole.std()) / math.sqrt(150)
    p = torch.tensor([f.squared.p_value for f in found])
    assert int((p <= 0.1).sum()) <= binom.isf(1e-4, 150, 0.14)


@pytest.mark.parametrize("null", ["bootstrap", "draws"])
def test_the_kernel_sees_widths_and_ignored_data(null):
    prior, model, y, _ = problem(size=4, rows=2)
    posterior = prior.condition(model, y)
    one = priors.Gaussian(torch.zeros(3, dtype=DOUBLE), 1.0)
    wide = priors.Gaussian(torch.zeros(3, dtype=DOUBLE), 1.5)
    g, p = source(19), {}
    sets = {"exact": (posterior, posterior), "prior": (prior, posterior), "wide": (wide, one)}
    for name, (law, target) in sets.items():
        way = target.sample if null == "draws" else null
        found = kernel_discrepancy(law.sample(500, g), target, null=way, replicates=60)
        p[name] = found.squared.p_value
    assert p["exact"] > 0.01
    assert p["prior"] == p["wide"] == 1 / 61


def test_the_score_of_any_posterior_serves_the_kernel():
    prior, model, y, _ = problem(size=4, rows=2)
    exact, lifted = prior.condition(model, y), inverse.condition(prior, model, y)
    x = exact.sample(100, source(23))
    for sigma in (0.01, 1.0):
        found = [kernel_discrepancy(x, p, sigma=sigma, replicates=5) for p in (exact, lifted)]
        assert found[0].squared.value == pytest.approx(found[1].squared.value, rel=1e-6)


def test_the_width_of_the_kernel_is_that_of_the_accuracy_trap():
    A = torch.zeros(14, 16, dtype=DOUBLE)
    A[range(14), range(2, 16)] = torch.arange(0.10, 0.751, 0.05, dtype=DOUBLE)
    assert kernel_width(MatrixOperator(A), (16,)) == pytest.approx(1 / 1.425)
    with pytest.raises(ValueError, match="too large"):
        kernel_width(MatrixOperator(A), (5000,))


def test_nulls_count_from_above():
    null = Null(torch.arange(1.0, 100.0, dtype=DOUBLE))
    assert null.p_value(99.5) == 0.01
    assert null.p_value(50.0) == 0.51
    assert null.p_value(0.0) == 1.0
    assert null.median == 50.0
    with pytest.raises(ValueError, match="level"):
        null.quantile(1.5)


def test_pictures_and_words(tmp_path):
    t = truth()
    x = t.sample(100, source(20))
    sliced = sliced_wasserstein(x, t.sample(100, source(21)), null=t.sample, replicates=20,
                                projections=20)  # fmt: skip
    modes = mode_weights(x, t, replicates=20)
    kernel = kernel_discrepancy(x, t, replicates=20)
    for name, found in {"sliced": sliced, "modes": modes, "kernel": kernel}.items():
        axes = Figure().subplots()
        assert found.plot(axes) is axes
        found.plot(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    drawn = sliced.plot().lines[0].get_xdata()
    assert list(drawn) == [sliced.w2.value] * 2
    assert [bar.get_height() for bar in modes.plot().containers[0]] == WEIGHTS.tolist()
    assert "exact sets" in str(sliced.w2)
    assert str(sliced) == (
        f"W1 {sliced.w1}, W2 {sliced.w2}, W2 on the worst direction {sliced.largest}"
    )
    shuffled = sliced_wasserstein(x, x, null="permutation", replicates=20, projections=20)
    assert "(shuffled sets: " in str(shuffled)
    far = replace(modes, found=torch.tensor([0.9, 0.1, 0.0, 0.0], dtype=DOUBLE))
    assert f"; farthest off mode 0: 0.9 ± {modes.errors[0]:.2g} for {WEIGHTS[0]:.3g}" in str(far)
    assert str(kernel).endswith(f"p = {kernel.squared.p_value:.2g}) at sigma {kernel.sigma:.3g}")
    assert "random signs" in kernel.plot().get_legend().get_texts()[0].get_text()
    assert "Null(20 random signs, median" in repr(kernel)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: sliced_wasserstein(x, x[:, :2]), ValueError, "as many values"),
        (lambda x: sliced_wasserstein(x, x, weights=torch.ones(3)), ValueError, "shape"),
        (lambda x: sliced_wasserstein(x, x, weights=-torch.ones(9)), ValueError, ">= 0"),
        (lambda x: sliced_wasserstein(x * math.nan, x), ValueError, "9 of 9"),
        (lambda x: sliced_wasserstein(x.int(), x), TypeError, "floating"),
        (lambda x: sliced_wasserstein(x[:1], x), ValueError, "two samples"),
        (lambda x: sliced_wasserstein(x, x, projections=0), ValueError, "projections"),
        (lambda x: mode_weights(x, priors.Gaussian(torch.zeros(8), 1.0)), TypeError, "Mixture"),
        (lambda x: kernel_discrepancy(x, truth(), width=0.0), ValueError, "width"),
        (lambda x: kernel_discrepancy(x, truth(), weights=torch.eye(9)[0]), ValueError, "two samp"),
    ],
)
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call(torch.randn(9, 8, generator=source(22)))
