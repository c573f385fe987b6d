"""The martingale test and its reverse steps: exact laws, exact likelihoods, faults it must see."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from likelihood_cases import AsNetwork, mixture
from problems import DOUBLE, Component, problem

import inverse
import priors
from forward_models import LinearGaussian, MatrixOperator
from inverse.diagnostics.estimate import Estimate
from inverse.diagnostics.martingale import martingale_test
from inverse.diagnostics.ratios import judged, log_mean, pair_of
from inverse.diagnostics.reverse import reverse_draw
from inverse.likelihoods import GaussianLift, Isotropic, Likelihood, PlugIn, Scaled, Tweedie

LEVELS = (8.0, 4.0, 2.0, 1.0, 0.5)


def source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def measured(prior: priors.Prior, lift, sigma: float = 1.5):
    """Two values of six, with noise that a few levels resolve."""
    A = torch.randn(2, 6, generator=source(1), dtype=DOUBLE)
    y = torch.tensor([[0.4, -0.7]], dtype=DOUBLE)
    return inverse.condition(prior, LinearGaussian(MatrixOperator(A), sigma), y, lift=lift)


def tweedie(model, y):
    return GaussianLift(model, y, Tweedie())


class Shifted(Likelihood):
    """Another likelihood, larger by a constant at every noise level."""

    needs_covariance = True

    def __init__(self, likelihood: Likelihood, nats: float) -> None:
        self.likelihood, self.nats = likelihood, nats

    def shift(self, moments):
        return self.likelihood.shift(moments)

    def log_likelihood(self, moments):
        return self.likelihood.log_likelihood(moments) + self.nats


PRIORS = {
    "gaussian": lambda: problem()[0],
    "mixture": mixture,
    "empirical": lambda: priors.Empirical(torch.randn(7, 6, generator=source(2), dtype=DOUBLE)),
    "network": lambda: AsNetwork(problem()[0]),
}


@pytest.mark.parametrize("below", [0.6, 0.0])
@pytest.mark.parametrize("name", list(PRIORS))
def test_reverse_steps_have_the_moments_of_the_reverse_process(name, below):
    """x_s given x_t: mean q x + (1 - q) D, covariance (1 - q)^2 Cov[x0 | x] + s^2 (1 - q)."""
    prior, t, n = PRIORS[name](), 1.5, 20_000
    x = torch.randn(1, 6, generator=source(3), dtype=DOUBLE)
    found = reverse_draw(prior, x.expand(n, 6), t, below, source(4))
    D, product = prior.covariance(x, t)
    C = torch.stack([product(row[None])[0] for row in torch.eye(6, dtype=DOUBLE)]).detach()
    q = (below / t) ** 2
    mean = (q * x + (1 - q) * D)[0].detach()
    covariance = (1 - q) ** 2 * C + below**2 * (1 - q) * torch.eye(6, dtype=DOUBLE)
    apart = found.mean(0) - mean
    assert float((apart / (covariance.diagonal() / n).sqrt()).abs().max()) < 5
    error = 5 * (covariance.diagonal()[:, None] * covariance.diagonal() * 4 / n).sqrt()
    slack = 0.03 if name == "network" else 0.0
    assert bool(((found.mT.cov() - covariance).abs() <= error + slack * covariance.abs()).all())


@pytest.mark.parametrize("seed", range(3))
def test_exact_likelihoods_hold_down_to_the_clean_image(seed):
    prior = problem()[0]
    posterior = measured(prior, tweedie)
    x0 = prior.condition(*posterior.factors[0]).sample(48, source(seed))
    found = martingale_test(posterior, x0, LEVELS, draws=128, seed=seed)
    assert found.verdict == "holds"
    assert found.exact_steps
    assert [found.pairs[0].sigma, found.pairs[-1].below] == [8.0, 0.0]
    for pair, after in zip(found.pairs, found.pairs[1:], strict=False):
        assert pair.below == after.sigma
    assert all(abs(p.bias.value) < 5 * p.bias.error for p in found.pairs)


def test_likelihoods_that_are_given_at_every_level_hold():
    means = 0.5 * torch.randn(3, 6, generator=source(14), dtype=DOUBLE)
    prior = priors.Mixture(means, 0.7, torch.full((3,), 1 / 3, dtype=DOUBLE))
    given = inverse.condition(prior, Component(prior), 1)
    found = martingale_test(given, prior.sample(48, source(5)), (4.0, 2.0, 1.0), draws=128)
    assert found.verdict == "holds"


def test_a_network_of_the_same_law_holds_by_small_steps():
    prior = AsNetwork(problem()[0])
    x0 = problem()[0].sample(32, source(6))
    found = martingale_test(measured(prior, tweedie), x0, LEVELS, draws=128, tolerance=0.02)
    assert found.verdict == "holds"
    assert not found.exact_steps


FAULTS = {
    "plug-in": lambda m, y: PlugIn(m, y),
    "isotropic": lambda m, y: GaussianLift(m, y, Isotropic(s=3.0)),
    "noise x 1.2": lambda m, y: tweedie(LinearGaussian(m.operator, 1.2 * m.sigma), y),
    "squared": lambda m, y: Scaled(tweedie(m, y), 2.0),
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_faulty_likelihoods_are_caught(name):
    prior = problem()[0]
    x0 = prior.sample(64, source(7))
    found = martingale_test(measured(prior, FAULTS[name]), x0, LEVELS, draws=256)
    assert found.verdict == "violated"
    worst = found.worst
    assert worst.verdict == "violated"
    assert worst.violation.value > 3 * worst.violation.error


def test_a_noise_of_another_size_is_seen_at_the_clean_image_alone():
    """It is the exact likelihood of another model: a martingale, until p(y | x0) is asked."""
    prior = problem()[0]
    found = martingale_test(
        measured(prior, FAULTS["noise x 1.2"]), prior.sample(64, source(8)), (4.0, 2.0, 1.0),
        draws=256,
    )  # fmt: skip
    assert {p.verdict for p in found.pairs if p.below > 0} == {"holds"}
    assert "violated" in {p.verdict for p in found.pairs if p.below < 1}


def test_a_common_factor_is_the_bias_at_the_clean_image():
    prior = problem()[0]
    lift = lambda m, y: Shifted(tweedie(m, y), 0.3)  # noqa: E731
    found = martingale_test(
        measured(prior, lift), prior.sample(64, source(9)), (1.0, 0.5), draws=256
    )
    *above, last = found.pairs
    assert all(pair.verdict == "holds" for pair in above)
    assert last.verdict == "violated"
    assert last.bias.value == pytest.approx(-0.3, abs=5 * last.bias.error)
    assert last.violation.value == pytest.approx(0.3, abs=5 * last.violation.error)


def test_tmpd_on_a_mixture_is_wrong_where_the_modes_overlap_and_right_below():
    prior = mixture()
    x0 = prior.sample(64, source(10))
    levels = (8.0, 4.0, 0.9, 0.6, 0.4)
    found = martingale_test(measured(prior, tweedie), x0, levels, refine=0)
    assert [p.verdict for p in found.pairs[:4]] == ["violated", "unknown", "holds", "holds"]
    assert found.worst.sigma == 8.0


def test_the_variance_of_the_log_ratio_has_its_closed_form():
    """One value: r_s ~ N(r_t, a^2 (c_t - c_s)) given x_t, and l is quadratic in it."""
    prior, a, s2, t, s = priors.Gaussian(torch.zeros(1, dtype=DOUBLE), 1.0), 1.3, 0.2, 1.0, 0.7
    model = LinearGaussian(MatrixOperator(torch.tensor([[a]], dtype=DOUBLE)), math.sqrt(s2))
    y = torch.tensor([[0.8]], dtype=DOUBLE)
    posterior = inverse.condition(prior, model, y, lift=tweedie)
    x0 = torch.full((400, 1), 0.5, dtype=DOUBLE)
    pair = martingale_test(posterior, x0, (t, s), draws=400).pairs[0]
    ct, cs = (v**2 / (1 + v**2) for v in (t, s))
    tau, v = a**2 * (ct - cs), s2 + a**2 * cs
    r = (0.8 - a * 0.5 / (1 + t**2)) ** 2 + (a * t / (1 + t**2)) ** 2  # E r_t^2 over the noise
    expected = (2 * tau**2 + 4 * r * tau) / (4 * v**2)
    assert pair.variance.value == pytest.approx(expected, abs=5 * pair.variance.error)
    assert pair.variance.error < 0.1 * expected


def test_levels_too_far_apart_are_unknown_or_halved():
    prior, model, y, x0 = *problem()[:3], problem()[0].sample(16, source(11))
    posterior = inverse.condition(prior, model, y, lift=tweedie)
    far = martingale_test(posterior, x0, (2.0, 0.2), refine=0, draws=64)
    assert far.pairs[0].verdict == far.verdict == "unknown"
    assert far.pairs[0].known < 0.9
    assert math.isnan(far.pairs[0].p_value)
    halved = martingale_test(posterior, x0, (2.0, 0.2), refine=2, draws=64)
    assert len(halved.pairs) > len(far.pairs)
    assert [p.below for p in halved.pairs[:-1]] == [p.sigma for p in halved.pairs[1:]]
    lost = replace(far, pairs=far.pairs[:1])
    assert str(lost) == (
        "unknown at 1 of 1 pairs of levels; where unknown, levels are too far apart or draws too "
        "few"
    )


def test_the_mean_of_ratios_is_known_by_its_logarithm():
    """Lognormal ratios of mean 1: log mean exp is 0 within its error, without the bias Var / 2M."""
    v = 0.5
    ratio = v**0.5 * torch.randn(20_000, 100, generator=source(12), dtype=DOUBLE) - v / 2
    found = log_mean(ratio)
    assert abs(float(found.value.mean())) < 1e-3
    assert float(found.error.mean() / found.value.std()) == pytest.approx(1, rel=0.1)
    assert float(found.size.mean()) == pytest.approx(100 * math.exp(-v), rel=0.1)


def test_martingales_with_heavy_ratios_raise_no_alarm_and_others_do():
    """Lognormal ratios whose spread differs from state to state: 200 pairs of each kind."""
    g = source(15)
    spread = torch.linspace(0.2, 1.4, 200, dtype=DOUBLE)[:, None]
    alarms = {0.0: 0, 0.1: 0, 0.3: 0}
    for _ in range(200):
        z = torch.randn(200, 128, generator=g, dtype=DOUBLE)
        own = torch.randn(200, 1, generator=g, dtype=DOUBLE)
        for size in alarms:
            # Each state is off by its own amount, none on average.
            pair = pair_of(1.0, 0.5, spread * z - spread**2 / 2 + size * own)
            assert pair.verdict == "holds"
            alarms[size] += judged(pair, 1e-3, 0.01).verdict == "violated"
    assert alarms[0.0] <= 2
    assert alarms[0.1] >= 150
    assert alarms[0.3] == 200


def test_the_picture_holds_the_pairs(tmp_path):
    prior = problem()[0]
    posterior = measured(prior, FAULTS["isotropic"])
    found = martingale_test(posterior, prior.sample(16, source(13)), LEVELS, draws=64)
    found = replace(found, pairs=(*found.pairs, replace(found.pairs[0], verdict="unknown")))
    axes = found.plot(tmp_path / "martingale.png")
    assert (tmp_path / "martingale.png").read_bytes()[:4] == b"\x89PNG"
    told = str(found)
    counts = Counter(pair.verdict for pair in found.pairs)
    assert counts["violated"] > 0
    assert told.startswith(f"violated at {counts['violated']}, unknown at {counts['unknown']}, ")
    assert f"of {len(found.pairs)} pairs of levels; the largest is a bias of " in told
    worst = found.worst
    assert f"of {worst.violation} nats, root mean square, from sigma {worst.sigma:.3g} " in told
    assert worst.verdict == "violated"
    shown = {text.get_text().rsplit(", ")[-1] for text in axes.get_legend().get_texts()[1:]}
    words = {"violated": "violated", "unknown": "unknown", "holds": "not seen to be violated"}
    assert shown == {words[v] for v in counts}
    lost = tuple(replace(p, bias=Estimate(math.nan, math.nan)) for p in found.pairs[-1:])
    legend = replace(found, pairs=(*found.pairs[:-1], *lost)).plot().get_legend()
    assert not any("unknown" in text.get_text() for text in legend.get_texts())
    known = [pair.violation.value for pair in found.pairs[:-1]]
    assert list(axes.lines[0].get_ydata()) == [
        v for v, pair in zip(known, found.pairs, strict=False) if pair.verdict != "unknown"
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"levels": (1.0, 2.0)}, "falling"),
        ({"levels": (1.0, 0.0)}, "> 0"),
        ({"draws": 41}, "even"),
        ({"draws": 10}, "draws"),
        ({"substeps": 0}, "substeps"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"x0": torch.zeros(3, 6, dtype=DOUBLE)}, "at least 8"),
        ({"x0": torch.zeros(9, 5, dtype=DOUBLE)}, "shape"),
    ],
)
def test_refusals(options, words):
    x0 = options.pop("x0", torch.zeros(9, 6, dtype=DOUBLE))
    with pytest.raises(ValueError, match=words):
        martingale_test(measured(problem()[0], tweedie), x0, **options)
    with pytest.raises(TypeError, match="condition"):
        martingale_test(problem()[0], x0)
