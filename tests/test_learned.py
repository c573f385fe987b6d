"""Learned likelihoods: what training converges to, particles over them, files, restarts."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch
from method_cases import Opaque
from problems import DOUBLE, Component
from safetensors.torch import load_file, save_file

import inverse
import priors
from forward_models import (
    Downsampling,
    ForwardModel,
    Gaussian,
    Identity,
    Inpainting,
    LinearGaussian,
    MatrixOperator,
    Observation,
)
from inverse.likelihoods import Learned, LearnedLift, Moments, PlugIn
from priors.training import LogNormal, UniformTime

# At each noise level the largest error of the shift, and of the log ratio in nats.
LIMITS = {0.03: (0.045, 0.085), 0.1: (0.09, 0.25), 0.3: (0.2, 0.32), 1.0: (0.25, 0.36),
          3.0: (0.13, 0.3)}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small lose time by sharing their work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mixture():
    means = torch.tensor([[-2.0, 0.0], [2.0, 1.0], [0.0, -2.0]], dtype=DOUBLE)
    return priors.Mixture(means, 0.1, torch.tensor([0.3, 0.5, 0.2], dtype=DOUBLE))


def projection(angle=0.5, sigma=0.3):
    return LinearGaussian(MatrixOperator(torch.tensor([[1.0, angle]], dtype=DOUBLE)), sigma)


class Hidden(ForwardModel):
    """A linear-Gaussian model that is only evaluated and simulated."""

    differentiable = False

    def __init__(self, model, shape=(1,)):
        self.model, self.measurement_shape = model, shape

    def log_likelihood(self, y, x):
        return self.model.log_likelihood(y, x)

    def simulate(self, x, generator=None):
        return self.model.simulate(x, generator)


@cache
def trained():
    return inverse.learn(mixture(), projection(), steps=400, batch=512, widths=(64, 64, 64))


@cache
def untrained():
    return inverse.learn(mixture(), projection(), steps=1, batch=512, widths=(64,))


def errors(lift, sigma, model=None):
    """Relative error of the shift, and standard deviation of the error of log p_sigma(y | x) over
    x at one y, at draws of p_sigma(x | y) for 32 draws of y; both exact in closed form."""
    prior, exact, g = mixture(), projection(), torch.Generator().manual_seed(9)
    wrong = size = spread = 0.0
    for _ in range(32):
        y = exact.simulate(prior.sample(1, g).double(), g)
        known = prior.condition(exact, y)
        x0 = known.sample(64, g).double()
        x = x0 + sigma * torch.randn(x0.shape, generator=g, dtype=DOUBLE)
        posterior = inverse.condition(prior, model or exact, y, lift=lift)
        D, shift, log_p = posterior.twisted(x, sigma)
        true = known.denoise(x, sigma) - D
        wrong += float((shift - true).square().sum())
        size += float(true.square().sum())
        apart = log_p - (known.log_density(x, sigma) - prior.log_density(x, sigma))
        spread += float(apart.var()) / 32
    return (wrong / size) ** 0.5, spread**0.5


# ---- what training converges to --------------------------------------------------------------


@pytest.mark.parametrize("sigma", LIMITS)
def test_the_shift_and_the_log_ratio_are_those_of_the_exact_posterior(sigma):
    """A mixture of three Gaussians behind one linear measurement."""
    shift, log_p = errors(trained(), sigma)
    assert shift < LIMITS[sigma][0]
    assert log_p < LIMITS[sigma][1]
    if sigma >= 0.1:
        assert shift < 0.6 * errors(PlugIn, sigma)[0]
    if sigma >= 1:
        first_shift, first_log_p = errors(untrained(), sigma)
        assert shift < 0.5 * first_shift
        assert shift < 0.02 * errors(PlugIn, sigma)[0]
        if sigma == 1:
            assert log_p < 0.5 * first_log_p


def test_a_black_box_is_learned_from_its_simulations_alone():
    hidden = Hidden(projection())
    lift = inverse.learn(mixture(), hidden, steps=250, batch=512, widths=(64, 64))
    for sigma in (0.3, 1.0, 3.0):
        assert errors(lift, sigma, hidden)[0] < 0.6


def test_a_gaussian_whose_directions_are_alike_needs_no_training():
    """With a measured variance the starting point is the exact answer."""
    prior = priors.Gaussian(torch.tensor([0.5, -1.0], dtype=DOUBLE), 0.7)
    model = LinearGaussian(MatrixOperator(torch.eye(2, dtype=DOUBLE)), 0.4)
    lift = inverse.learn(prior, model, steps=1, widths=(8,))
    y, x = torch.tensor([[1.0, 0.2]], dtype=DOUBLE), torch.randn(
        64, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)
    )  # fmt: skip
    known = prior.condition(model, y)
    for sigma in (0.2, 1.0, 5.0):
        D, shift, log_p = inverse.condition(prior, model, y, lift=lift).twisted(x, sigma)
        true = known.denoise(x, sigma) - D
        assert float((shift - true).norm() / true.norm()) < 0.1
        apart = log_p - (known.log_density(x, sigma) - prior.log_density(x, sigma))
        assert float(apart.std()) < 0.1 * float((log_p).std()) + 0.02


def test_small_noise_levels_have_the_likelihood_itself():
    prior, model = mixture(), projection()
    x = prior.sample(32, torch.Generator().manual_seed(2)).double()
    y = torch.tensor([[0.7]], dtype=DOUBLE)
    posterior = inverse.condition(prior, model, y, lift=trained())
    at = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.log_likelihood(y, at).sum(), at)
    _, shift, _ = posterior.twisted(x, 1e-4)
    assert float((shift / 1e-8 - gradient).norm() / gradient.norm()) < 0.05
    _, shift, log_p = posterior.twisted(x, 0.0)
    assert float(shift.abs().max()) == 0
    expected = model.log_likelihood(y, x)
    torch.testing.assert_close(log_p - log_p[0], expected - expected[0], rtol=1e-5, atol=1e-5)


# ---- sampling --------------------------------------------------------------------------------


def test_particles_over_the_learned_twist_converge_to_the_exact_posterior():
    """Mean, and the weight of the mode that y leaves least probable."""
    prior, model, y = mixture(), projection(), torch.tensor([[-0.9]], dtype=DOUBLE)
    posterior = inverse.condition(prior, model, y, lift=trained())
    found = inverse.sample(posterior, n=3000, method="tds", steps=40, seed=1)
    exact = prior.condition(model, y)
    assert found.diagnostics["jacobian_products"] == 0
    mean, covariance = exact.moments()
    error = (covariance.diagonal() / float(found.diagnostics["roots"])).sqrt()
    assert ((found.mean.double() - mean).abs() < 5 * error).all()
    for k in range(3):
        near = torch.cdist(found.x.double(), prior.means).argmin(1) == k
        weight, share = float(found.weights[near].sum()), float(exact.weights[k])
        limit = 5 * (share * (1 - share) / float(found.diagnostics["roots"])) ** 0.5
        assert abs(weight - share) < limit + 0.01, k
    evidence = float(prior.log_evidence(model, y))
    assert found.diagnostics["log_evidence"] == pytest.approx(evidence, abs=0.3)


def test_a_twist_may_be_any_lift():
    prior, model, y = mixture(), projection(), torch.tensor([[0.7]], dtype=DOUBLE)
    plain = inverse.condition(prior, model, y)
    given = inverse.sample(plain, n=8, method="tds", steps=6, seed=0, twist=trained())
    kept = inverse.sample(
        inverse.condition(prior, model, y, lift=trained()), n=8, method="tds", steps=6, seed=0
    )
    assert torch.equal(given.x, kept.x)
    assert not torch.equal(given.x, inverse.sample(plain, n=8, method="tds", steps=6, seed=0).x)


def test_deft_needs_a_network_and_samples_with_it():
    prior, model, y = mixture(), projection(), torch.tensor([[0.7]], dtype=DOUBLE)
    with pytest.raises(ValueError, match=r"inverse\.learn\(prior, model\)"):
        inverse.sample(inverse.condition(prior, model, y), method="deft")
    posterior = inverse.condition(prior, model, y, lift=trained())
    found = inverse.sample(posterior, n=500, method="deft", steps=50, seed=0)
    exact, covariance = prior.condition(model, y).moments()
    assert found.diagnostics["network_calls"] == 50
    assert ((found.mean - exact).abs() < 0.3 * covariance.diagonal().sqrt()).all()
    # Classifiers known at every noise level stay exact beside it.
    both = posterior.given(Component(prior), torch.tensor(1))
    assert inverse.sample(both, n=4, method="deft", steps=10, seed=0).x.isfinite().all()


def test_observations_that_are_linear_and_gaussian_are_taken_as_that():
    model = Observation(MatrixOperator(torch.tensor([[1.0, 0.5]], dtype=DOUBLE)), Gaussian(0.3))
    lift = inverse.learn(mixture(), model, steps=2, widths=(8,))
    posterior = inverse.condition(mixture(), model, torch.tensor([[0.7]], dtype=DOUBLE), lift=lift)
    assert isinstance(posterior.likelihoods[0], Learned)


# ---- images, precision -----------------------------------------------------------------------


def picture():
    prior = Opaque(priors.Gaussian(torch.zeros(1, 8, 8, dtype=DOUBLE), 0.5))
    mask = torch.ones(8, 8)
    mask[2:5, 2:5] = 0
    images = 0.7 * torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return prior, LinearGaussian(Inpainting(mask), 0.2), images


def test_images_are_learned_by_convolutions():
    prior, model, images = picture()
    losses = []
    lift = inverse.learn(
        prior, model, images, steps=12, batch=8, widths=(16, 16), patch=2,
        callback=lambda step: losses.append(step.loss),
    )  # fmt: skip
    assert len(losses) == 12
    posterior = inverse.condition(prior, model, model.simulate(images[:1]), lift=lift)
    whole = inverse.sample(posterior, n=3, method="deft", steps=4, seed=0)
    assert whole.x.shape == (3, 1, 8, 8)
    alone = inverse.sample(posterior, n=3, method="deft", steps=4, seed=0, batch=1)
    torch.testing.assert_close(alone.x, whole.x, atol=1e-4, rtol=1e-4)


def test_doubles_are_served_and_levels_may_differ_within_a_batch():
    prior, model = mixture(), projection()
    likelihood = trained()(model, torch.tensor([[0.7]], dtype=DOUBLE))
    x = torch.randn(3, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor([[0.02], [0.5], [3.0]], dtype=DOUBLE)
    D = prior.denoise(x, sigma.flatten())
    shift, log_p = likelihood.evaluate(Moments(x, sigma, D))
    assert shift.dtype == log_p.dtype == DOUBLE
    torch.testing.assert_close(likelihood.shift(Moments(x, sigma, D)), shift)
    for i in range(3):
        one = slice(i, i + 1)
        alone = likelihood.evaluate(Moments(x[one], sigma[one], D[one]))
        torch.testing.assert_close(alone[0], shift[one], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(alone[1], log_p[one], rtol=1e-5, atol=1e-5)


def test_the_shift_can_be_differentiated():
    """By the reverse pass that `Exact` and others allow too."""
    prior, model = mixture(), projection()
    posterior = inverse.condition(prior, model, torch.tensor([[0.7]], dtype=DOUBLE), lift=trained())
    x = torch.randn(2, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    at = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(posterior.denoise(at, 1.0)[:, 0].sum(), at)
    step = torch.tensor([1e-2, 0.0], dtype=DOUBLE)
    change = (posterior.denoise(x + step, 1.0) - posterior.denoise(x - step, 1.0))[:, 0] / 2e-2
    torch.testing.assert_close(slope[:, 0], change, rtol=2e-2, atol=2e-3)


# ---- files and restarts ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vector", "black box", "image"])
def test_a_saved_lift_comes_back_bit_for_bit(kind, tmp_path):
    if kind == "image":
        prior, model, images = picture()
        lift = inverse.learn(prior, model, images, steps=2, batch=4, widths=(16,))
    elif kind == "vector":
        lift = inverse.learn(mixture(), projection(), steps=2, widths=(8, 8))
    else:
        lift = inverse.learn(mixture(), Hidden(projection()), steps=2, widths=(8,))
    inverse.save_learned(lift, tmp_path / "lift")
    state = torch.get_rng_state()
    back = inverse.load_learned(tmp_path / "lift")
    assert torch.equal(state, torch.get_rng_state())
    written = sorted(p.name for p in (tmp_path / "lift").iterdir())
    assert written == ["learned.json", "learned.safetensors"]
    ours, theirs = lift.networks.state_dict(), back.networks.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert not any(p.requires_grad for p in back.networks.parameters())


def test_files_that_were_tampered_with_are_refused(tmp_path):
    from priors.pretrained.safe_files import sha256

    lift = inverse.learn(mixture(), projection(), steps=1, widths=(8,))
    inverse.save_learned(lift, tmp_path)
    index, tensors = tmp_path / "learned.json", tmp_path / "learned.safetensors"
    facts, data = json.loads(index.read_text()), tensors.read_bytes()

    def described(**changes):
        index.write_text(json.dumps({**facts, **changes}))

    tensors.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match="SHA-256 differs"):
        inverse.load_learned(tmp_path)
    state = load_file(_written(tensors, data))
    for name, value in (("error", None), ("error", torch.ones(3)), ("more", torch.ones(1))):
        changed = {k: v for k, v in (state | {name: value}).items() if v is not None}
        save_file(changed, tensors)
        described(sha256=sha256(tensors))
        with pytest.raises(ValueError, match="holds other tensors"):
            inverse.load_learned(tmp_path)
    save_file(state | {"error": state["error"] * torch.nan}, tensors)
    described(sha256=sha256(tensors))
    with pytest.raises(ValueError, match="not finite"):
        inverse.load_learned(tmp_path)
    tensors.write_bytes(data)
    for wrong in ({"widths": [2**20, 2**20]}, {"widths": "many"}, {"code": "x"}, {"patch": -1.5}):
        described(networks={**facts["networks"], **wrong})
        with pytest.raises(ValueError, match=r"learned\.json describes"):
            inverse.load_learned(tmp_path)
    described(format=2)
    with pytest.raises(ValueError, match="format 1"):
        inverse.load_learned(tmp_path)
    with pytest.raises(FileNotFoundError):
        inverse.load_learned(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="LearnedLift"):
        inverse.save_learned(lift.networks, tmp_path)


def _written(path, data):
    path.write_bytes(data)
    return path


def test_an_interrupted_training_goes_on_bit_for_bit(tmp_path):
    def learn(**more):
        settings = {"steps": 12, "batch": 16, "widths": (8,), "every": 4} | more
        return inverse.learn(mixture(), projection(), **settings)

    state = torch.get_rng_state()
    whole = learn()

    def stop(step):
        if step.step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(checkpoint=tmp_path, callback=stop)
    seen = []
    again = learn(checkpoint=tmp_path, callback=lambda step: seen.append(step.step))
    assert seen == [9, 10, 11, 12]
    assert torch.equal(state, torch.get_rng_state())
    ours, theirs = whole.networks.state_dict(), again.networks.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    with pytest.raises(ValueError, match="holds a run of other settings"):
        learn(checkpoint=tmp_path, batch=32)
    for levels in (
        LogNormal(-3.0, 0.2, (0.01, 50.0)),
        UniformTime(priors.VE(), (0.01, 50.0)),
    ):
        with pytest.raises(ValueError, match=r"holds a run of other settings: levels"):
            learn(checkpoint=tmp_path, levels=levels)
    with pytest.raises(ValueError, match="holds a run of other settings: scales"):
        inverse.learn(
            mixture(), projection(0.6), steps=12, batch=16, widths=(8,), every=4,
            checkpoint=tmp_path,
        )  # fmt: skip
    assert not torch.equal(
        learn(seed=1).networks.shift_network.head.weight,
        whole.networks.shift_network.head.weight,
    )


# ---- refusals --------------------------------------------------------------------------------


def test_another_forward_model_is_refused():
    y = torch.tensor([[0.7]], dtype=DOUBLE)
    for model in (projection(0.6), projection(sigma=0.4), Hidden(projection())):
        with pytest.raises(ValueError, match="trained for another forward model"):
            inverse.condition(mixture(), model, y, lift=trained())
    posterior = inverse.condition(mixture(), projection(), y, lift=trained())
    with pytest.raises(ValueError, match="trained for another forward model"):
        posterior.given(projection(), y)
    assert isinstance(posterior.lift, LearnedLift)


def test_settings_that_mean_nothing_are_refused():
    prior, model = mixture(), projection()
    with pytest.raises(TypeError, match="prior must be a Prior"):
        inverse.learn(model, model)
    with pytest.raises(TypeError, match=r"wrap the operator: LinearGaussian\(operator, sigma\)"):
        inverse.learn(prior, model.operator)
    with pytest.raises(TypeError, match=r"wrap the matrix: LinearGaussian\(MatrixOperator\(A\)"):
        inverse.learn(prior, torch.ones(1, 2))
    with pytest.raises(ValueError, match="widths must be positive integers"):
        inverse.learn(prior, model, widths=())
    with pytest.raises(ValueError, match="device 'cuda:99' is not there"):
        inverse.learn(prior, model, device="cuda:99")
    with pytest.raises(TypeError, match="known at every noise level"):
        inverse.learn(prior, Component(prior))
    with pytest.raises(ValueError, match="has no exact draws: pass images"):
        inverse.learn(Opaque(prior), model)
    with pytest.raises(ValueError, match=r"images must have shape \(N, 2\)"):
        inverse.learn(prior, model, torch.zeros(5, 3))
    with pytest.raises(TypeError, match="floating tensor"):
        inverse.learn(prior, model, torch.zeros(5, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="not finite"):
        inverse.learn(prior, model, torch.full((5, 2), torch.nan))
    with pytest.raises(TypeError, match="levels must be a NoiseLevels density"):
        inverse.learn(prior, model, levels=(0.01, 50.0))
    with pytest.raises(ValueError, match="batch must be at least 2"):
        inverse.learn(prior, model, batch=1)
    with pytest.raises(ValueError, match="steps must be an integer"):
        inverse.learn(prior, model, steps=0)
    volume = Opaque(priors.Gaussian(torch.zeros(2, 4, 4, 4), 1.0))
    scan = LinearGaussian(Identity(), 0.1)
    with pytest.raises(ValueError, match=r"events \(D,\) or \(C, H, W\)"):
        inverse.learn(volume, scan, torch.randn(4, 2, 4, 4, 4))
    known = priors.Gaussian(torch.zeros(1, 8, 8), 1.0)
    with pytest.raises(ValueError, match="a black box is learned from y itself"):
        inverse.learn(known, Hidden(LinearGaussian(Downsampling(2), 0.1), None))
