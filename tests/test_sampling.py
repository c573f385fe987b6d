"""The front door: methods against exact posteriors, counts, seeds, restarts and refusals."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import torch
from problems import DOUBLE, Component, problem

import inverse
import priors
from forward_models import (
    Blur,
    ForwardModel,
    Identity,
    Inpainting,
    LinearGaussian,
    MatrixOperator,
    gaussian_kernel,
)
from inverse.likelihoods import GaussianLift, Isotropic
from inverse.samplers import Ancestral, Heun


def assert_moments(x, mean, covariance, errors: float = 5.0):
    """Sample mean and covariance within `errors` standard errors of the stated ones."""
    x, n = x.double().flatten(1), len(x)
    variance = covariance.diagonal()
    z_mean = (x.mean(0) - mean.flatten()) / (variance / n).sqrt()
    spread = ((covariance**2 + torch.outer(variance, variance)) / n).sqrt()
    z_covariance = (torch.cov(x.T) - covariance) / spread
    assert z_mean.abs().max() < errors, z_mean
    assert z_covariance.abs().max() < errors, z_covariance


@pytest.mark.parametrize("method", ["exact", "mmps", None])
def test_exact_and_mmps_reach_the_closed_form_of_a_gaussian_problem(method):
    prior, model, y, _ = problem()
    posterior = prior.condition(model, y)
    samples = inverse.sample(
        inverse.condition(prior, model, y), n=1500, method=method, steps=60, seed=0
    )
    assert_moments(samples.x, *posterior.moments())


def test_mmps_is_exact_for_a_gaussian_known_only_through_its_denoiser():
    """Few measurements are solved fully, by vector-Jacobian products alone."""
    prior, model, y, _ = problem()

    class Opaque(priors.Prior):
        event_shape, sigma_range = prior.event_shape, prior.sigma_range

        def _denoise(self, x, sigma):
            return prior.denoise(x, sigma.flatten())

    posterior = inverse.condition(Opaque(), model, y)
    samples = inverse.sample(posterior, n=1500, method="mmps", steps=60, seed=0)
    assert_moments(samples.x, *prior.condition(model, y).moments())


@pytest.mark.parametrize("options", [{"sampler": "Heun"}, {"absorb": True}])
def test_a_method_under_another_sampler_and_absorbed(options):
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)
    if "sampler" in options:
        options = {"sampler": Heun(priors.geometric(40, posterior.sigma_range))}
    samples = inverse.sample(posterior, n=1500, method="mmps", seed=0, **options)
    assert samples.diagnostics["method"] in ("mmps by Heun", "mmps, absorbed")
    assert_moments(samples.x, *prior.condition(model, y).moments(), errors=6)


def test_pigdm_is_exact_for_the_prior_its_label_names():
    prior, model, y, _ = problem(isotropic=True)
    posterior = inverse.condition(prior, model, y)
    samples = inverse.sample(posterior, n=1500, method="pigdm", steps=60, seed=0)
    assert_moments(samples.x, *prior.condition(model, y).moments())
    prior, model, y, _ = problem()
    mean, covariance = prior.condition(model, y).moments()
    biased = inverse.sample(
        inverse.condition(prior, model, y), n=1500, method="pigdm", steps=60, seed=0
    )
    with pytest.raises(AssertionError):
        assert_moments(biased.x, mean, covariance)


def test_labels_state_what_is_exact():
    labels = {m.name: m.exact_when for m in inverse.methods()}
    assert labels["exact"] == "always"
    assert "covariance scale^2 I" in labels["pigdm"]
    assert labels["dps"].startswith("never for linear-Gaussian")
    for method in inverse.methods():
        assert method.paper.count("https://") == 1
        assert method.cost
        assert method.family in {"exact", "guidance", "splitting", "particles", "variational"}


def sliced_wasserstein(a, b, slices: int = 200) -> float:
    g = torch.Generator().manual_seed(0)
    directions = torch.randn(a.shape[1], slices, generator=g, dtype=a.dtype)
    directions = directions / directions.norm(dim=0)
    return float(((a @ directions).sort(0).values - (b @ directions).sort(0).values).abs().mean())


def test_exact_reaches_the_sampling_floor_on_a_mixture():
    g = torch.Generator().manual_seed(0)
    means = 4 * torch.randn(5, 8, generator=g, dtype=DOUBLE)
    prior = priors.Mixture(means, 1.0, torch.full((5,), 0.2, dtype=DOUBLE))
    model = LinearGaussian(MatrixOperator(torch.randn(2, 8, generator=g, dtype=DOUBLE)), 2.0)
    y = model.simulate(prior.sample(1, generator=g), generator=g)
    truth = prior.condition(model, y)
    n = 1000
    reference = truth.sample(n, generator=g)
    floors = [sliced_wasserstein(truth.sample(n, generator=g), reference) for _ in range(20)]
    posterior = inverse.condition(prior, model, y)
    ours = inverse.sample(posterior, n=n, method="exact", seed=1).x
    assert sliced_wasserstein(ours, reference) < max(floors) * 1.2
    unconditional = prior.sample(n, generator=g)
    assert sliced_wasserstein(unconditional, reference) > 5 * max(floors)
    # The exact score of the posterior, walked by a sampler, reaches it too.
    walked = inverse.sample(truth, n=n, steps=100, seed=1, dtype=DOUBLE).x
    assert sliced_wasserstein(walked, reference) < max(floors) * 1.5


def test_exact_with_a_time_dependent_factor():
    means = torch.tensor([[-3.0, 0.0], [3.0, 0.5]], dtype=DOUBLE)
    mixture = priors.Mixture(means, 0.2, torch.tensor([0.3, 0.7], dtype=DOUBLE))
    posterior = inverse.condition(mixture, Component(mixture), 0)
    samples = inverse.sample(posterior, n=1000, steps=60, seed=0, dtype=DOUBLE)
    assert samples.diagnostics["method"] == "exact"
    assert_moments(samples.x, means[0], 0.2 * torch.eye(2, dtype=DOUBLE))


def mask_problem():
    """Half of the pixels missing, sigma_y = 0.05: where a published default ignored y."""
    g = torch.Generator().manual_seed(0)
    rows = torch.arange(8, dtype=DOUBLE)
    smooth = torch.exp(-((rows[:, None] - rows) ** 2) / 4) + 1e-3 * torch.eye(8, dtype=DOUBLE)
    prior = priors.Gaussian(torch.zeros(1, 8, 8, dtype=DOUBLE), torch.kron(smooth, smooth))
    mask = torch.rand(8, 8, generator=g) < 0.5
    model = LinearGaussian(Inpainting(mask), 0.05)
    return prior, model, model.simulate(prior.sample(1, generator=g), generator=g)


@pytest.mark.parametrize(
    ("method", "steps"),
    [("exact", None), ("dps", 1000), ("dps", 200), ("pigdm", 60), ("mmps", 60)],
)
def test_samples_explain_the_measurement(method, steps):
    prior, model, y = mask_problem()
    posterior = inverse.condition(prior, model, y)
    samples = inverse.sample(posterior, n=4, method=method, steps=steps, seed=0)
    residual = np.mean(samples.diagnostics["residual_sigma"])
    ignored = model.residual(y, prior.sample(4)) / 0.05
    unconditional = float((ignored.square().sum() / (4 * model.count(y))).sqrt())
    assert unconditional > 10
    assert 0.4 < residual < 2, (residual, unconditional)
    assert samples.diagnostics["reduced_chi2"] == pytest.approx(
        np.mean(np.square(samples.diagnostics["residual_sigma"]))
    )


@pytest.mark.parametrize("method", ["dps", "pigdm", "mmps", "diffpir"])
def test_one_network_call_a_step(method):
    prior, model, y = mask_problem()
    samples = inverse.sample(
        inverse.condition(prior, model, y), n=3, method=method, steps=12, seed=0
    )
    assert samples.diagnostics["network_calls"] == 12
    entry = next(m for m in inverse.methods() if m.name == method)
    assert (samples.diagnostics["jacobian_products"] > 0) == entry.jacobian


def test_mmps_on_a_network_spends_three_products_a_step():
    def network(x, t):
        return x * 0.5 + 0.1 * x**2

    prior = priors.NetworkPrior(network, "epsilon", (1, 8, 8), sigma_range=(0.01, 50.0))
    model = LinearGaussian(Inpainting(torch.ones(8, 8, dtype=torch.bool)), 0.3)
    posterior = inverse.condition(prior, model, torch.zeros(1, 8, 8))
    counts = inverse.sample(posterior, n=2, method="mmps", steps=5, seed=0).diagnostics
    assert counts["network_calls"] == 5
    assert counts["jacobian_products"] <= 15


def test_samples_depend_on_seed_and_index_not_on_n_or_batch():
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)

    def draw(n, **options):
        return inverse.sample(posterior, n=n, method="mmps", steps=15, **options).x

    eight = draw(8, seed=5)
    assert torch.allclose(eight[:4], draw(4, seed=5), atol=1e-10)
    assert torch.allclose(eight, draw(8, seed=5, batch=3), atol=1e-10)
    assert torch.equal(eight, draw(8, seed=5))
    assert not torch.allclose(eight, draw(8, seed=0))


@pytest.mark.parametrize("prior", [
    priors.Gaussian(torch.zeros(3, dtype=DOUBLE), 1.0),
    priors.Mixture(torch.eye(3, dtype=DOUBLE), 0.2, torch.tensor([0.2, 0.3, 0.5], dtype=DOUBLE)),
    priors.Empirical(torch.randn(9, 3, generator=torch.Generator().manual_seed(0))),
], ids=["gaussian", "mixture", "empirical"])  # fmt: skip
def test_exact_draws_depend_on_seed_and_index_and_follow_the_prior(prior):
    seven = inverse.sample(prior, n=7, seed=0)
    assert seven.diagnostics["method"] == "exact"
    assert torch.equal(seven.x[:4], inverse.sample(prior, n=4, seed=0).x)
    assert not torch.equal(seven.x, inverse.sample(prior, n=7, seed=1).x)
    many = inverse.sample(prior, n=4000, seed=0).x
    again = prior.sample(4000, generator=torch.Generator().manual_seed(1))
    assert ((many.mean(0) - again.mean(0)) / (2 * many.var(0) / 4000).sqrt()).abs().max() < 5
    assert (torch.cov(many.T) - torch.cov(again.T)).abs().max() < 0.15 * many.var(0).max()


def test_a_scalar_event():
    prior = priors.Gaussian(torch.tensor(0.5, dtype=DOUBLE), 1.0)
    model = LinearGaussian(Identity(), 0.5)
    posterior = inverse.condition(prior, model, torch.tensor([1.0], dtype=DOUBLE))
    for method in ("exact", "mmps"):
        samples = inverse.sample(posterior, n=3000, method=method, steps=60, seed=0)
        assert samples.x.shape == (3000,)
        assert float(samples.mean) == pytest.approx((0.5 + 4 * 1.0) / 5, abs=0.05)


def test_a_lift_of_the_callers_own_is_kept():
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)
    own = posterior.lifted(lambda m, z: GaussianLift(m, z, Isotropic(s=0.5)))
    samples = inverse.sample(own, n=2, steps=10, seed=0)
    assert samples.diagnostics["method"] == "own lift"
    assert inverse.condition(posterior, model, y, lift=own.lift).lift is own.lift


def test_exact_is_not_chosen_where_it_would_need_a_huge_matrix():
    prior = priors.Gaussian(
        torch.zeros(1, 160, 160), priors.Circulant(torch.ones(1, 160, 160) + 1.0)
    )
    model = LinearGaussian(Blur(gaussian_kernel(1.0, 5)), 0.1)
    posterior = inverse.condition(prior, model, torch.zeros(1, 160, 160))
    assert inverse.sample(posterior, steps=2, seed=0).diagnostics["method"] == "mmps"
    with pytest.raises(ValueError, match="needs a matrix"):
        inverse.sample(posterior, method="exact")


def test_no_seed_is_a_fresh_one_which_is_recorded():
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)
    first = inverse.sample(posterior, n=2, method="pigdm", steps=5)
    again = inverse.sample(posterior, n=2, method="pigdm", steps=5, seed=first.diagnostics["seed"])
    assert torch.equal(first.x, again.x)
    assert inverse.sample(posterior, steps=5).diagnostics["seed"] != first.diagnostics["seed"]


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("inverse.checkpoint.PERIOD", 0.0)
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)
    options = {"n": 5, "method": "mmps", "steps": 8, "seed": 2, "batch": 2}
    whole = inverse.sample(posterior, **options).x

    class KilledError(Exception):
        pass

    for kill in (1, 4, 8, 13, 23):

        def stop(step, kill=kill):
            if step.index == kill:
                raise KilledError

        folder = tmp_path / str(kill)
        with pytest.raises(KilledError):
            inverse.sample(posterior, **options, checkpoint=folder, callback=stop)
        resumed = inverse.sample(posterior, **options, checkpoint=folder)
        assert torch.equal(resumed.x, whole), kill
    for change, words in (
        ({"seed": 3}, r"holds another run: seed is 2 there, 3 here; choose"),
        ({"steps": 9}, r"levels is 8 there, 9 here, sampler differs; choose"),
        ({"method": "dps", "zeta": 0.5}, r"method is mmps there, dps here.*zeta is not set there"),
    ):
        with pytest.raises(ValueError, match=words):
            inverse.sample(posterior, **{**options, **change}, checkpoint=folder)
    with pytest.raises(ValueError, match="holds another run: y differs, factors differs"):
        inverse.sample(inverse.condition(prior, model, y + 1), **options, checkpoint=folder)
    with pytest.raises(ValueError, match="checkpoint needs a seed"):
        inverse.sample(posterior, **{**options, "seed": None}, checkpoint=folder)
    other = priors.Gaussian(prior.mean + 1, prior.C)
    for changed in (
        inverse.condition(other, model, y),
        inverse.condition(prior, LinearGaussian(model.operator, 0.4), y),
        inverse.condition(prior, LinearGaussian(-model.operator, 0.2), y),
    ):
        with pytest.raises(ValueError, match="holds another run"):
            inverse.sample(changed, **options, checkpoint=folder)
    state = folder / "batch00000.safetensors"
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    with pytest.raises(ValueError, match="corrupt"):
        inverse.sample(posterior, **options, checkpoint=folder)


def test_progress_runs_over_all_batches():
    prior, model, y, _ = problem()
    steps = []
    inverse.sample(
        inverse.condition(prior, model, y), n=3, method="pigdm", steps=4, batch=2, seed=0,
        callback=steps.append,
    )  # fmt: skip
    assert [s.index for s in steps] == list(range(1, 9))
    assert {s.total for s in steps} == {8}


def test_a_prior_is_sampled_without_a_measurement_and_by_any_sampler():
    prior, _, _, _ = problem()
    levels = priors.geometric(60, prior.sigma_range)
    for samples in (
        inverse.sample(prior, n=2000, steps=60, seed=0, dtype=DOUBLE),
        inverse.sample(prior, n=2000, seed=0, dtype=DOUBLE, sampler=Heun(levels)),
    ):
        assert_moments(samples.x, *prior.moments())


def test_refusals_name_what_came_and_what_can():
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)
    with pytest.raises(ValueError, match=r"unknown method 'mmp'; did you mean 'mmps'\? Known: "):
        inverse.sample(posterior, method="mmp")
    for name, bad in [("n", 0), ("n", 2.0), ("n", True), ("steps", 0), ("batch", -1)]:
        with pytest.raises(ValueError, match=f"{name} must be an integer >= 1"):
            inverse.sample(posterior, **{name: bad})
    for name, bad, error in (
        ("absorb", "no", TypeError), ("callback", 3, TypeError), ("dtype", "float32", TypeError),
        ("dtype", torch.int64, TypeError), ("device", "gpu", ValueError),
    ):  # fmt: skip
        with pytest.raises(error, match=f"{name} .*{bad}"):
            inverse.sample(posterior, **{name: bad})
    with pytest.raises(ValueError, match="leave out steps"):
        inverse.sample(posterior, steps=3, sampler=Heun([1.0, 0.0]))
    with pytest.raises(ValueError, match="leave out the sampler"):
        inverse.sample(posterior, method="tds", sampler=Heun([1.0, 0.0]))
    with pytest.raises(ValueError, match="drawn exactly"):
        inverse.sample(posterior, method="exact", absorb=True)
    with pytest.raises(ValueError, match="needs a measurement"):
        inverse.sample(prior, method="mmps")
    with pytest.raises(TypeError, match="must be a Prior"):
        inverse.sample(torch.zeros(3))
    with pytest.raises(ValueError, match="n must be 2 or a multiple of it, got 3"):
        inverse.sample(inverse.condition(prior, model, torch.cat([y, y])), n=3)
    with pytest.raises(ValueError, match="exact draws take no steps"):
        inverse.sample(prior, method="exact", steps=4)
    network = priors.NetworkPrior(lambda x, t: x, "epsilon", (6,))
    with pytest.raises(ValueError, match="NetworkPrior has no exact draws"):
        inverse.sample(network, method="exact")
    with pytest.raises(ValueError, match=r"no closed form.*Methods that can: mmps, pigdm"):
        inverse.sample(inverse.condition(network, model, y), method="exact")

    class Saturated(ForwardModel):
        event_shape = measurement_shape = (6,)

        def log_likelihood(self, y, x):
            return -((y - x.tanh()) ** 2).sum(1)

        def simulate(self, x, generator=None):
            return x.tanh()

    nonlinear = inverse.condition(prior, Saturated(), torch.ones(6, dtype=DOUBLE))
    for method in ("exact", "pigdm", "mmps"):
        with pytest.raises(ValueError, match=r"Saturated.*Methods that can: dps"):
            inverse.sample(nonlinear, method=method)
    assert inverse.sample(nonlinear, n=2, steps=20, seed=0).diagnostics["method"] == "dps"


@pytest.mark.parametrize("n", [8, 200])
def test_many_residuals_print_as_their_median_and_range_and_are_saved_whole(n, tmp_path):
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)
    samples = inverse.sample(posterior, n=n, method="exact", seed=0)
    residual = samples.diagnostics["residual_sigma"]
    assert residual == [float(v) for v in model.misfit(y, samples.x)]
    told = f"[{n} values: median {np.median(residual):.3g}, from {min(residual):.3g} to "
    told += f"{max(residual):.3g}]"
    assert (f"'residual_sigma': {told}" in str(samples.diagnostics)) is (n > 8)
    assert str(residual[:8]) == str([float(v) for v in residual[:8]])
    saved = json.loads((samples.save(tmp_path / "out") / "diagnostics.json").read_text())
    assert saved["residual_sigma"] == list(residual)
    both = inverse.sample(inverse.condition(prior, model, y.repeat(2, 1)), n=2 * n, seed=0)
    assert len(str(both.of(1).diagnostics["residual_sigma"])) < 250


def test_the_summaries_of_samples(tmp_path):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(39, 2, 3, generator=g)
    samples = inverse.Samples(x, {"seed": 0})
    assert torch.allclose(samples.mean, x.mean(0))
    assert torch.allclose(samples.std, x.std(0))
    low, high = samples.interval(0.9)
    ordered = x.sort(0).values
    # 0.05 * 40 = rank 2, counted from 1
    assert torch.allclose(low, ordered[1])
    assert torch.allclose(high, ordered[37])
    folder = samples.save(tmp_path / "out")
    assert np.array_equal(np.load(folder / "samples.npy"), x.numpy())
    report = json.loads((folder / "diagnostics.json").read_text())
    assert report["seed"] == 0
    assert set(report["sha256"]) == {"samples.npy", "mean.npy", "std.npy"}
    assert not list(folder.glob("*.tmp"))
    with pytest.raises(ValueError, match="needs n >= 19 samples, got 5"):
        inverse.Samples(x[:5]).interval(0.9)
    with pytest.raises(ValueError, match="level must lie"):
        samples.interval(1.0)
    with pytest.raises(ValueError, match="at least 2"):
        _ = inverse.Samples(x[:1]).std


@pytest.mark.parametrize("n", [19, 40, 100])
def test_the_interval_holds_a_new_sample_with_its_level(n):
    g = torch.Generator().manual_seed(n)
    x = torch.randn(n, 20000, generator=g)
    new = torch.randn(20000, generator=g)
    low, high = inverse.Samples(x).interval(0.9)
    share = float(((new >= low) & (new <= high)).double().mean())
    assert abs(share - 0.9) < 5 * math.sqrt(0.09 / 20000) + 0.01


def test_a_sampler_brings_its_levels_to_the_likelihood_too():
    """DPS scales its steps by how many there are: 30 levels are 30, whoever chose them."""
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)
    own = inverse.recipes.find("dps").recipe(posterior, 30).sampler
    given = inverse.sample(posterior, n=2, method="dps", sampler=own, seed=0)
    assert torch.equal(given.x, inverse.sample(posterior, n=2, method="dps", steps=30, seed=0).x)
    for method in ("dps", None):
        with pytest.raises(ValueError, match="leave out steps"):
            inverse.sample(posterior, method=method, sampler=own, steps=5)
    with pytest.raises(ValueError, match=r"no likelihood under a sampler.*take one of mmps, "):
        inverse.sample(posterior, method="tds", sampler=own)


def test_a_dtype_other_than_the_measurements_is_refused_up_front():
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)
    for method in ("exact", "mmps", None):
        with pytest.raises(TypeError, match=r"dtype is torch.float32, but y has torch.float64"):
            inverse.sample(posterior, method=method, dtype=torch.float32)
    again = inverse.sample(inverse.condition(prior, model, y.float()), dtype=torch.float32)
    assert again.x.dtype == torch.float32


def test_constants_that_belong_to_a_sampler_are_not_lent_to_another_in_silence():
    """dps weighs by the steps of its own grid; a score, like mmps', any sampler may follow."""
    prior, model, y = mask_problem()
    posterior = inverse.condition(prior, model, y)
    sampler = Ancestral(priors.geometric(5, prior.sigma_range))
    with pytest.warns(RuntimeWarning, match="constants of 'dps' are sizes of its own sampler"):
        inverse.sample(posterior, n=1, method="dps", sampler=sampler, seed=0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        inverse.sample(posterior, n=1, method="pigdm", sampler=sampler, seed=0)
    assert not any("constants" in str(w.message) for w in said)
