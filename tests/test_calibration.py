"""Calibration: exact posteriors pass, and each fault is caught and called by its name."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import inverse
import priors
from forward_models import (
    Classifier,
    Inpainting,
    Intensity,
    LinearGaussian,
    MatrixOperator,
    Observation,
)
from forward_models.noise import Gaussian as GaussianNoise
from inverse import checkpoint
from inverse.diagnostics import simulations
from inverse.diagnostics.quantities import views
from inverse.diagnostics.widths import visible
from inverse.result import Samples

DOUBLE = torch.float64


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def p1():
    """A Gaussian of two values, of which one sum is measured."""
    prior = priors.Gaussian(
        torch.tensor([0.5, -1.0], dtype=DOUBLE),
        torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=DOUBLE),
    )
    return prior, LinearGaussian(MatrixOperator(torch.tensor([[1.0, 0.5]], dtype=DOUBLE)), 0.3)


def p2():
    """A mixture of three in two values, of which one sum is measured."""
    prior = priors.Mixture(
        torch.tensor([[-2.0, 0.0], [2.0, 1.0], [0.0, 3.0]], dtype=DOUBLE),
        torch.tensor([0.3, 0.5, 0.4], dtype=DOUBLE),
        torch.tensor([0.3, 0.4, 0.3], dtype=DOUBLE),
    )
    return prior, p1()[1]


def p3():
    """A mixture of four in eight values, of which four sums are measured."""
    g = rng(3)
    prior = priors.Mixture(
        3 * torch.randn(4, 8, generator=g, dtype=DOUBLE),
        torch.tensor([0.5, 1.0, 0.7, 0.9], dtype=DOUBLE),
        torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=DOUBLE),
    )
    A = torch.randn(4, 8, generator=g, dtype=DOUBLE)
    return prior, LinearGaussian(MatrixOperator(A), 0.5)


def p4():
    """A field of 16 x 16 values, correlated over three, of which half are measured."""
    place = torch.arange(16, dtype=DOUBLE)
    one = torch.exp(-(place[:, None] - place).abs() / 3)
    prior = priors.Gaussian(torch.zeros(1, 16, 16, dtype=DOUBLE), torch.kron(one, one))
    mask = torch.rand(16, 16, generator=rng(1)) < 0.5
    return prior, LinearGaussian(Inpainting(mask), 0.1)


def p5():
    """The square of one of two values: both its signs are as likely, wherever y is large."""
    prior = priors.Gaussian(torch.zeros(1, 1, 1, dtype=DOUBLE), 1.0)
    return prior, Observation(Intensity(), GaussianNoise(0.2))


def exact(prior, model):
    return lambda y, n, seed: prior.condition(model, y).sample(n, rng(seed))


def ignoring(prior, model):
    return lambda y, n, seed: prior.sample(n, rng(seed))


def misjudging(factor):
    def build(prior, model):
        return exact(prior, LinearGaussian(model.operator, factor * model.sigma))

    return build


def shifting(prior, model):
    def sample(y, n, seed):
        x = prior.condition(model, y).sample(n, rng(seed))
        x[:, 0] += 0.2 * prior.scale
        return x

    return sample


def dropping(prior, model):
    def sample(y, n, seed):
        posterior = prior.condition(model, y)
        k = int(posterior.weights.argmax())
        return priors.Gaussian(posterior.means[k], posterior.C[k]).sample(n, rng(seed))

    return sample


def point(prior, model):
    return lambda y, n, seed: prior.condition(model, y).mean.expand(n, -1).clone()


def of_parts(prior, model, parts):
    """What `parts` of the posterior of p5 leave, by inverting its distribution on a fine grid."""
    grid = torch.linspace(-6, 6, 6001, dtype=DOUBLE)
    kept = grid > 0 if parts == "one sign" else torch.ones_like(grid, dtype=torch.bool)

    def sample(y, n, seed):
        x = grid[kept].reshape(-1, 1, 1, 1)
        density = (prior.log_density(x) + model.log_likelihood(y, x)).softmax(0)
        drawn = torch.multinomial(density, n, replacement=True, generator=rng(seed))
        return x[drawn] + 0.002 * (torch.rand(n, 1, 1, 1, generator=rng(seed + 1)) - 0.5)

    return sample


@pytest.mark.parametrize("problem", [p1, p2, p3, p4])
def test_the_exact_posterior_is_calibrated(problem):
    n = 30 if problem is p4 else 120
    found = inverse.calibrate(*problem(), "exact", n=n, seed=1)
    assert found.calibrated, found
    assert found.verdict.startswith(f"calibrated: no fault found in {n} simulations; a width error")
    assert "exact draws of the prior" in found.truths
    for width in found.evidence.widths.values():
        assert abs(width.value - 1) < 5 * width.error
    for cover in found.coverage.values():
        assert abs(cover.at(0.9)[0] - 0.9) < 5 * cover.at(0.9)[1]


FAULTS = [
    (p2, ignoring, 100, "ignores the data"),
    (p3, ignoring, 100, "ignores the data"),
    (p3, misjudging(1.2), 200, "too wide by"),
    (p3, misjudging(1 / 1.2), 300, "too narrow by"),
    (p2, misjudging(1.5), 150, "too wide by"),
    (p1, shifting, 100, "shifted by"),
    (p3, shifting, 100, "shifted by"),
    (p2, dropping, 150, "misses a part of the posterior"),
    (p1, point, 60, "too narrow by 100 %"),
]


@pytest.mark.parametrize(("problem", "fault", "n", "words"), FAULTS)
def test_a_fault_is_caught_and_named(problem, fault, n, words):
    prior, model = problem()
    found = inverse.calibrate(prior, model, fault(prior, model), n=n)
    assert not found.calibrated, found
    assert found.evidence.findings[0].startswith(words), found.verdict
    assert found.verdict.startswith("not calibrated: ")


def test_the_figures_of_a_fault_are_right():
    """y = x0 + noise of half the prior's deviation, as if it were wider or elsewhere."""
    prior = priors.Gaussian(torch.zeros(3, dtype=DOUBLE), 1.0)
    model = LinearGaussian(MatrixOperator(torch.eye(3, dtype=DOUBLE)), 0.5)

    def sample(y, n, seed):
        posterior = prior.condition(model, y)
        x = posterior.mean + 1.3 * (posterior.sample(n, rng(seed)) - posterior.mean)
        x[:, 1] -= 0.4 / 5**0.5  # the posterior's standard deviation is 1 / sqrt 5
        return x

    whole = inverse.calibrate(prior, model, sample, n=250)
    found = whole.evidence
    for name in ("values", "measured", "projections"):
        assert abs(found.widths[name].value - 1.3) < 5 * found.widths[name].error
        assert 0.01 < found.widths[name].error < 0.05
    shifts = {shift.label: shift for shift in found.shifts}
    second = shifts["value [1]"]
    assert abs(second.value + 0.4 / 1.3) < 5 * second.error
    for label in ("value [0]", "value [2]"):
        assert abs(shifts[label].value) < 5 * shifts[label].error
    cover = whole.coverage["values"].at(0.9)[0]
    assert cover == pytest.approx(0.96, abs=0.02)


def test_too_few_simulations_decide_nothing():
    prior, model = p1()
    few = inverse.calibrate(prior, model, exact(prior, model), n=25)
    assert few.verdict.startswith("undecided: no fault found in 25 simulations, which are too few")
    assert not few.calibrated
    assert not few.summary()["decided"]
    blatant = inverse.calibrate(prior, model, point(prior, model), n=25)
    assert blatant.verdict.startswith("not calibrated: ")
    assert blatant.evidence.decided


def test_draws_of_little_weight_decide_nothing():
    """Importance weights of the prior's draws: right, and worth few; more truths do not help."""
    prior, model = p1()
    louder = LinearGaussian(model.operator, 0.02)

    def weighed(y, n, seed):
        x = prior.sample(n, rng(seed))
        return Samples(x, weights=louder.log_likelihood(y, x).softmax(0))

    found = inverse.calibrate(prior, louder, weighed, n=60)
    assert found.verdict.startswith("undecided: no fault found in 60 simulations, whose draws are")
    assert not found.calibrated


@pytest.mark.parametrize("wrong", [50.0, -1.0])
def test_weights_that_are_none_are_refused(wrong):
    prior, model = p1()

    def weighed(y, n, seed):
        w = torch.full((n,), 1 / n, dtype=DOUBLE)
        w[0] = wrong
        return Samples(prior.sample(n, rng(seed)), weights=w)

    with pytest.raises(ValueError, match="weights, not negative, that sum to 1"):
        inverse.calibrate(prior, model, weighed, n=20)


def test_weights_of_some_measurements_are_not_lost():
    prior, model = p1()
    draw = exact(prior, model)

    def every_other(y, n, seed):
        x = draw(y, n, seed)
        if float(y.flatten()[0]) < 0:
            return x
        w = torch.full((n,), 1 / (n - n // 2), dtype=DOUBLE)
        x[: n // 2] += 100  # of no weight
        w[: n // 2] = 0
        return Samples(x, weights=w)

    found = inverse.calibrate(prior, model, every_other, n=60).evidence
    assert not found.faults
    for width in found.widths.values():
        assert abs(width.value - 1) < 5 * width.error


def test_what_is_looked_at_does_not_depend_on_the_truths():
    """Nor is a seen pixel looked at as unmeasured."""
    mask = torch.rand(6, 6, generator=rng(0)) < 0.5
    prior = priors.Gaussian(torch.zeros(1, 6, 6, dtype=DOUBLE), 1.0)
    model = LinearGaussian(Inpainting(mask.expand(1, 6, 6)), 0.05)
    pools = [prior.sample(32, rng(seed)) for seed in (1, 2)]
    columns = [
        next(v.columns for v in views(prior, model, pool, 0) if v.name == "unmeasured")
        for pool in pools
    ]
    assert torch.equal(*columns)
    assert set(columns[0].tolist()) == set((~mask.flatten()).nonzero().flatten().tolist())


def test_the_error_that_would_have_been_seen_is_seen():
    prior, model = p3()
    clean = inverse.calibrate(prior, model, exact(prior, model), n=100)
    w = clean.evidence.visible["what is measured"]
    assert w is not None
    assert f"{100 * w:.0f} % in what is measured" in clean.verdict

    def wider(y, n, seed):
        posterior = prior.condition(model, y)
        return posterior.mean + (1 + 1.4 * w) * (posterior.sample(n, rng(seed)) - posterior.mean)

    assert not inverse.calibrate(prior, model, wider, n=100).calibrated


@pytest.mark.parametrize("parts", ["both signs", "one sign"])
def test_a_nonlinear_posterior_of_two_modes(parts):
    prior, model = p5()
    found = inverse.calibrate(prior, model, of_parts(prior, model, parts), n=150)
    assert found.calibrated == (parts == "both signs"), found
    if parts == "one sign":
        assert "value [0, 0, 0]" in found.evidence.faults
        assert any(words.startswith(("misses", "shifted")) for words in found.evidence.findings)


def test_weights_count():
    prior, model = p1()

    def particles(y, n, seed):
        x = prior.sample(n, rng(seed))
        return Samples(x, weights=model.log_likelihood(y, x).softmax(0))

    weighed = inverse.calibrate(prior, model, particles, n=100, draws=400)
    assert weighed.calibrated, weighed
    as_they_are = inverse.calibrate(
        prior, model, lambda y, n, seed: particles(y, n, seed).x, n=100, draws=400
    )
    assert as_they_are.evidence.findings[0].startswith("ignores the data")


def test_methods_are_labelled():
    """DPS lands too near the measurement; PiGDM is exact here in the limit of many steps."""
    found = inverse.calibrate(*p2(), "dps", n=60, draws=19, steps=30)
    assert "log p(y|x)" in found.evidence.faults
    assert found.evidence.findings[0].startswith("too narrow by")
    assert "fit y more closely than the truth" in found.verdict
    assert found.method == "dps"
    default = inverse.calibrate(*p1(), n=20, draws=9)
    assert default.method == "exact"


def test_classes_and_priors_that_only_denoise():
    """Truths by the prior's own sampler; a class is a measurement without an operator."""

    class White(priors.Prior):
        event_shape, sigma_range = (2,), (0.01, 50.0)

        def _denoise(self, x, sigma):
            return x / (1 + sigma**2)

    torch_state = torch.get_rng_state()
    network = nn.Linear(2, 2, dtype=torch.float32)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.5, 0.0], [-1.5, 0.5]]))
    torch.set_rng_state(torch_state)
    model = Classifier(network, 2, (2,), data_range=(-1.0, 1.0))

    def by_rejection(y, n, seed):
        with torch.no_grad():
            x = torch.randn(40 * n, 2, generator=rng(seed))
            u = torch.rand(40 * n, generator=rng(seed + 1))
            return x[u.log() < model.log_likelihood(y, x)][:n]

    told = []
    found = inverse.calibrate(
        White(), model, by_rejection, n=100, callback=lambda *done: told.append(done)
    )
    assert found.calibrated, found
    truths = [done for done, _ in told].index(1)
    assert truths >= 100  # steps of the truths' own sampler
    assert told[truths:-1] == [(done, 100) for done in range(1, 101)]
    assert "own sampler" in found.truths
    assert "log p(x|y)" not in found.ranks
    assert set(found.coverage) == {"values", "projections"}
    ignoring = inverse.calibrate(
        White(), model, lambda y, n, seed: torch.randn(n, 2, generator=rng(seed)), n=100
    )
    assert ignoring.evidence.findings[0].startswith("ignores the data")
    assert torch.equal(torch_state, torch.get_rng_state())


def test_images_behind_latents():
    class Doubled:
        def decode(self, z):
            return 2 * z

    latents = priors.Gaussian(torch.zeros(2, dtype=DOUBLE), 1.0)
    ends = {"image_range": (-1.0, 1.0), "autoencoder_range": (-1.0, 1.0)}
    prior = priors.LatentPrior(latents, Doubled(), image_shape=(2,), **ends)
    model = LinearGaussian(MatrixOperator(torch.tensor([[1.0, 0.5]], dtype=DOUBLE)), 0.3)

    def images(y, n, seed):
        return exact(priors.Gaussian(torch.zeros(2, dtype=DOUBLE), 4.0), model)(y, n, seed)

    assert inverse.calibrate(prior, model, images, n=120, draws=19).calibrated
    by_method = inverse.calibrate(prior, model, "latent-daps", n=20, draws=9, steps=5)
    assert by_method.n == len(by_method.ranks["value [1]"]) == 20


def test_given_images_and_quantities_of_ones_own():
    prior, model = p1()
    images = prior.sample(300, rng(5))
    asked = {"product": lambda x, y: x[:, 0] * x[:, 1]}
    found = inverse.calibrate(prior, model, n=120, images=images, quantities=asked)
    assert found.calibrated
    assert "product" in found.ranks
    assert found.truths == "are given images"
    moved = inverse.calibrate(prior, model, n=100, images=images + 1.0)
    assert any(words.startswith("shifted by") for words in moved.evidence.findings)


def test_the_result_does_not_depend_on_the_batch():
    prior, model = p1()
    one, other = (
        inverse.calibrate(prior, model, "mmps", n=20, draws=9, steps=6, batch=b) for b in (None, 7)
    )
    for name, ranks in one.ranks.items():
        torch.testing.assert_close(ranks.u, other.ranks[name].u, rtol=0, atol=1e-9)
    again = inverse.calibrate(prior, model, "mmps", n=20, draws=9, steps=6)
    assert again.evidence.summary() == one.evidence.summary()


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(simulations, "MOST", 8)
    prior, model = p2()
    calls = []

    def counted(y, n, seed):
        calls.append(seed)
        return exact(prior, model)(y, n, seed)

    def run(callback=None, **changes):
        kept = {"n": 24, "draws": 9, "checkpoint": tmp_path, "callback": callback} | changes
        return inverse.calibrate(prior, model, counted, **kept)

    def stop(done, n):
        assert n == 24
        if done == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stop)
    before = len(calls)
    resumed = run()
    assert len(calls) == before + 16  # the first eight are kept
    monkeypatch.setattr(simulations, "MOST", 8)
    whole = run(checkpoint=None)
    assert resumed.evidence.summary() == whole.evidence.summary()
    assert len(calls) == before + 16 + 24
    with pytest.raises(ValueError, match="holds another run: seed is 0 there, 1 here"):
        run(seed=1)


def test_a_walk_interrupted_within_its_block_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "PERIOD", 0.0)
    prior, model = p1()

    def run(callback=None, folder=tmp_path):
        more = {"n": 20, "draws": 9, "steps": 8, "checkpoint": folder}
        return inverse.calibrate(prior, model, "mmps", **more, callback=callback)

    def stop(done, n):
        if 10 <= done < n:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stop)
    told = []
    resumed = run(lambda done, n: told.append(done))
    assert 10 <= told[0] < 20  # not from the start of the one block
    assert resumed.evidence.summary() == run(folder=None).evidence.summary()


def test_progress_of_closed_forms_is_told_simulation_by_simulation():
    told = []
    inverse.calibrate(*p3(), "exact", n=20, draws=9, callback=lambda *done: told.append(done))
    assert sorted(set(told)) == [(done, 20) for done in range(1, 21)]


def test_the_report_is_written(tmp_path):
    prior, model = p2()
    found = inverse.calibrate(prior, model, ignoring(prior, model), n=40, draws=9)
    text = str(found)
    assert found.verdict in text
    for name, ranks in found.ranks.items():
        assert f"{name} " in text
        assert f"{ranks.distance:.3f}" in text
    told = json.loads(json.dumps(found.summary()))
    assert told["verdict"] == found.verdict
    assert told["calibrated"] is False
    assert told["quantities"]["log p(y|x)"]["D"] == found.ranks["log p(y|x)"].distance
    assert told["false_alarm_rate"] == 1e-3
    path = found.plot(tmp_path / "calibration.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "ignores the data" in repr(found)


def test_bad_input_is_refused():
    prior, model = p1()
    run = inverse.calibrate
    with pytest.raises(TypeError, match="prior must be"):
        run(model, model)
    with pytest.raises(TypeError, match="simulates y"):
        run(prior, model.operator)
    with pytest.raises(ValueError, match="n must be an integer >= 20"):
        run(prior, model, n=5)
    with pytest.raises(ValueError, match="draws must be an integer >= 9"):
        run(prior, model, draws=3)
    with pytest.raises(ValueError, match="unknown method"):
        run(prior, model, "mmbs")
    with pytest.raises(TypeError, match="has no option"):
        run(prior, model, "mmps", zeta=1)
    with pytest.raises(TypeError, match="takes no options"):
        run(prior, model, exact(prior, model), steps=5)
    with pytest.raises(ValueError, match="disagree on the image"):
        run(priors.Gaussian(torch.zeros(3), 1.0), model)
    with pytest.raises(ValueError, match="M >= n = 200"):
        run(prior, model, images=torch.zeros(20, 2))
    with pytest.raises(ValueError, match="must be new names"):
        run(prior, model, quantities={"log p(y|x)": lambda x, y: x[:, 0]})
    with pytest.raises(ValueError, match="one finite number for each"):
        run(prior, model, n=20, quantities={"both": lambda x, y: x})
    with pytest.raises(ValueError, match="49 draws"):
        run(prior, model, lambda y, n, seed: prior.sample(3, rng(seed)))
    with pytest.raises(ValueError, match=r"a tensor of torch\.float64"):
        run(prior, model, lambda y, n, seed: prior.sample(n, rng(seed)).float())
    with pytest.raises(FloatingPointError, match="not finite"):
        run(prior, model, lambda y, n, seed: torch.full((n, 2), torch.nan, dtype=DOUBLE))
    with pytest.raises(TypeError, match="callback"):
        run(prior, model, callback=3)


def test_a_width_that_few_simulations_make_wrong_is_told_where_no_test_fails():
    prior, model = p3()

    def seldom_wide(y, n, seed):
        posterior = prior.condition(model, y)
        factor = 8.0 if seed % 50 == 0 else 1.0
        return posterior.mean + factor * (posterior.sample(n, rng(seed)) - posterior.mean)

    found = inverse.calibrate(prior, model, seldom_wide, n=1000, draws=19)
    assert found.calibrated
    assert "but on average over them, by few of them, too wide by" in found.verdict
    assert "few of them" not in inverse.calibrate(prior, model, exact(prior, model), n=100).verdict


def test_few_particles_of_some_weight_promise_nothing():
    generator = rng(3)
    values = torch.rand(200, 50, generator=generator, dtype=torch.float64)
    found = {}
    for particles in (1, 3, 49):
        weights = torch.zeros(200, 49, dtype=torch.float64)
        weights[:, :particles] = 1 / particles
        found[particles] = visible(values, weights, 1e-4)
    assert found[1] is None
    assert found[3] is None
    assert found[49] > 0.05
