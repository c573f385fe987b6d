"""Training: what the loop converges to, in every parametrisation, and that it goes on."""

from __future__ import annotations

import inspect
import math
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
import test_priors as contract
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from prior_cases import SCHEDULES, exact_network
from torch import nn

import priors
from priors.network import SpaceToDepth
from priors.training import (
    Augmentation,
    Checkpoint,
    DenoisingScoreMatching,
    Images,
    LogNormal,
    Optimizer,
    PriorTraining,
    Processes,
    Recipe,
    denoising_error,
    local_device,
    train,
    unet,
)
from priors.training import recipe as parts
from priors.training.images import saturated

MEAN, STD = 0.2, 0.4


class Pixelwise(nn.Module):
    """A network of independent pixels, enough for Gaussian data."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(2, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU())
            self.slope, self.offset = nn.Linear(32, 1), nn.Linear(32, 1)

    def forward(self, x, time):
        h = self.body(torch.stack([time, time**2], 1))
        return self.slope(h)[:, :, None, None] * x + self.offset(h)[:, :, None, None]


def gaussian_images(mean: float = MEAN, std: float = STD, n: int = 500) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return mean + std * torch.randn(n, 1, 4, 4, generator=g)


def denoising(network, images, batch=64, parametrization="edm", schedule=None):
    """The loss of one step and the prior that it trains."""
    prior = priors.NetworkPrior(
        network, parametrization, (1, 4, 4), sigma_data=STD, schedule=schedule
    )
    objective = DenoisingScoreMatching(sigma_data=STD)
    levels = LogNormal(-1.2, 1.4, (0.01, 40.0))

    def loss(generator):
        if isinstance(images, Images):
            x0 = images.batch(batch, generator)
        else:
            x0 = images[torch.randint(len(images), (batch,), generator=generator)]
        return objective(prior, x0, levels.sample(batch, generator), generator).mean()

    return loss, prior


def assert_learned(prior, tolerance=0.1, sigmas=(0.1, 0.4, 1.0)):
    exact = priors.Gaussian(torch.full((1, 4, 4), MEAN), STD**2)
    for sigma in sigmas:
        x = exact.sample(200, generator=torch.Generator().manual_seed(1))
        x = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            error = (prior.denoise(x, sigma) - exact.denoise(x, sigma)).square().mean().sqrt()
        assert error < tolerance * exact.denoise(x, sigma).std(), (sigma, error)


# --- the loop ------------------------------------------------------------------------------------


class Recovered(nn.Module):
    """What a perfect network is for Gaussian data, of a mean and a spread that are to be found."""

    def __init__(self, parametrization, schedule=None) -> None:
        super().__init__()
        self.mean, self.log_std = (nn.Parameter(torch.tensor(v)) for v in (-0.3, 0.0))
        self.exact = exact_network(self, parametrization, schedule, sigma_data=STD)

    def denoise(self, x, sigma):
        s2, v = sigma.reshape(-1, 1, 1, 1) ** 2, (2 * self.log_std).exp()
        return (s2 * self.mean + v * x) / (s2 + v)

    def forward(self, x, time):
        return self.exact(x, time)


LEARNED = {
    f"{parametrization} {name}": (parametrization, schedule)
    for parametrization in ("epsilon", "v", "x0", "score", "flow")
    for name, schedule in SCHEDULES.items()
} | {"edm": ("edm", None)}


@pytest.mark.parametrize("name", LEARNED)
def test_the_loop_finds_the_denoiser_of_gaussian_data(name):
    parametrization, schedule = LEARNED[name]
    network = Recovered(parametrization, schedule)
    loss, prior = denoising(network, gaussian_images(n=5000), 64, parametrization, schedule)
    train(network, loss, 60, optimizer=Optimizer(learning_rate=0.1, warmup=5, weight_decay=0.0))
    assert network.mean.item() == pytest.approx(MEAN, abs=0.02)
    assert network.log_std.exp().item() == pytest.approx(STD, abs=0.02)
    assert_learned(prior)


def test_a_network_that_knows_nothing_learns_the_denoiser():
    network = Pixelwise()
    loss, prior = denoising(network, gaussian_images(n=5000))
    train(network, loss, 400, optimizer=Optimizer(learning_rate=1e-2, warmup=20))
    assert_learned(prior)


def test_the_error_on_held_out_images_is_the_posterior_spread():
    exact = priors.Gaussian(torch.full((1, 4, 4), MEAN), STD**2)
    sigmas = (0.2, 1.0)
    errors = denoising_error(exact, gaussian_images(n=2000), sigmas, seed=5)
    for sigma, error in zip(sigmas, errors, strict=True):
        best = STD * sigma / math.hypot(STD, sigma)
        assert error == pytest.approx(best, rel=0.02)


def interrupted_by(step, how):
    def stop(seen):
        if seen.step == step:
            how()

    return stop


def raises():
    raise KeyboardInterrupt


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path, precision):
    images = Images(gaussian_images(n=20), Augmentation(flip=True, rotate=True, shift=1))

    class Dropping(Pixelwise):
        def forward(self, x, time):
            return super().forward(nn.functional.dropout(x, 0.2, self.training), time)

    def run(checkpoint=None, callback=None):
        network = Dropping()
        loss, _ = denoising(network, images, 8)
        return train(
            network, loss, 12, optimizer=Optimizer(warmup=2), checkpoint=checkpoint,
            callback=callback, precision=precision,
        ).state_dict()  # fmt: skip

    before = torch.get_rng_state()
    whole = run()
    assert torch.equal(torch.get_rng_state(), before)
    settings = {"a": 1, "b": {"c": None}}
    with pytest.raises(KeyboardInterrupt):  # cut off: the last state is that of step 6
        run(Checkpoint(tmp_path, settings, every=3), interrupted_by(7, raises))
    steps = []

    def looks(seen):
        steps.append(seen.step)
        with seen.averaged() as network:
            assert not network.training
        interrupted_by(9, lambda: signal.raise_signal(signal.SIGINT))(seen)

    with pytest.raises(KeyboardInterrupt):  # asked to stop: the state is that of the last step
        run(Checkpoint(tmp_path, settings, every=100), looks)
    assert steps == [7, 8, 9, 10]
    steps.clear()
    resumed = run(Checkpoint(tmp_path, {"a": 1}, every=3), looks)
    assert steps == [11, 12]
    for name, value in resumed.items():
        assert torch.equal(value, whole[name]), name
    with pytest.raises(ValueError, match="a was 1, is 2"):
        run(Checkpoint(tmp_path, {"a": 2}))
    (tmp_path / "state.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="corrupt"):
        run(Checkpoint(tmp_path, {"a": 1}))


def test_a_loss_that_is_not_finite_stops_the_run():
    network = Pixelwise()
    loss, _ = denoising(network, Images(torch.full((4, 1, 4, 4), float("nan"))))
    with pytest.raises(FloatingPointError, match="at step 0"):
        train(network, loss, 2)


def test_the_rate_rises_and_falls():
    plan = Optimizer(learning_rate=2.0, warmup=10)
    rates = [plan.rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == pytest.approx(2.0, rel=0.03)
    assert rates[50] == pytest.approx(1.0, rel=0.02)
    assert rates[99] < 0.01
    assert Optimizer(warmup=0, decay="constant").rate(99, 100) == Optimizer().learning_rate


def test_the_average_forgets_by_half_in_its_half_life():
    plan = Optimizer(half_life=50.0, ramp=1.0)
    kept = math.prod(plan.keep(step) for step in range(1000, 1050))
    assert kept == pytest.approx(0.5)
    # While the ramp rules, half is forgotten over a share e^ramp - 1 of the steps taken so far.
    early = Optimizer(ramp=0.1)
    kept = math.prod(early.keep(step) for step in range(10_000, round(10_000 * math.exp(0.1))))
    assert kept == pytest.approx(0.5, rel=1e-3)


def test_gradients_are_clipped_to_the_stated_norm():
    network = nn.Linear(1, 1, bias=False)
    norms = []

    def loss(generator):
        return 1000 * network.weight.sum()

    def look(step):
        norms.append((step.gradient_norm, float(network.weight.grad)))

    train(network, loss, 1, optimizer=Optimizer(clip=0.5), callback=look)
    assert norms[0][0] == pytest.approx(1000)
    assert norms[0][1] == pytest.approx(0.5, rel=1e-4)


class Line(nn.Module):
    """Least squares on eight points, of which each process takes its part."""

    points = torch.linspace(-1, 3, 16).reshape(8, 2)

    def __init__(self, start=0.0):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([start, 2.0]))

    def train_two_steps(self, group):
        """The steps' losses and gradient norms, and the averaged weights."""
        size = group.part(8)
        own = self.points[group.rank * size : (group.rank + 1) * size]
        seen = []
        plan = Optimizer(learning_rate=0.25, warmup=0, clip=100.0)
        train(
            self, lambda generator: (own @ self.slope - 1).square().mean(), 2, optimizer=plan,
            processes=group, callback=lambda step: seen.append((step.loss, step.gradient_norm)),
        )  # fmt: skip
        return torch.tensor(seen), self.slope.detach()


WORKER = """
import sys, torch
from torch import nn
from priors.training import Optimizer, Processes, train
{line}
group = Processes.from_environment()
torch.save(Line(start=1.0).train_two_steps(group), sys.argv[1])
group.wait()
"""


def test_two_processes_train_as_one_on_the_whole_batch(tmp_path, monkeypatch):
    """This process is the first, and all go from its weights."""
    whole, slope = Line().train_two_steps(Processes())
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    here = os.path.dirname(os.path.dirname(__file__))
    shared = {
        "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port),
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    program = WORKER.format(line=inspect.getsource(Line))
    worker = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "second.pt")],
        env={**os.environ, **shared, "RANK": "1", "LOCAL_RANK": "1"},
    )
    for name, value in {**shared, "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    try:
        dist.init_process_group("gloo", timeout=timedelta(seconds=180))
        group = Processes.from_environment()
        assert (group.rank, group.size) == (0, 2)
        first = Line().train_two_steps(group)
        group.wait()
        assert worker.wait(120) == 0
    finally:
        worker.kill()
        if dist.is_initialized():
            dist.destroy_process_group()
    for found in (first, torch.load(tmp_path / "second.pt", weights_only=True)):
        torch.testing.assert_close(found, (whole, slope))
    assert torch.equal(first[1], torch.load(tmp_path / "second.pt", weights_only=True)[1])


class Pair(Processes):
    """The first of two processes; the second, at step `other`, is played by arithmetic."""

    def __init__(self, other):
        super().__init__()
        self.other = other

    def mean(self, value):
        return (float(value) + self.other) / 2


def test_processes_that_do_not_see_one_checkpoint_are_refused(tmp_path):
    def loss(generator):
        return network.weight.square().sum()

    network = nn.Linear(1, 1, bias=False)
    train(network, loss, 2, checkpoint=Checkpoint(tmp_path, {}))
    with pytest.raises(ValueError, match="this one from 2; keep the checkpoint on a disk"):
        train(network, loss, 4, checkpoint=Checkpoint(tmp_path, {}), processes=Pair(other=0))


def test_each_process_trains_on_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert local_device() == torch.device("cuda", 3)
    # NCCL takes the current device, which must be the own one when the processes meet.
    done = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(str(device)))
    monkeypatch.setattr(dist, "init_process_group", lambda backend: done.append(backend))
    monkeypatch.setattr(dist, "get_rank", lambda: 7)
    monkeypatch.setattr(dist, "get_world_size", lambda: 8)
    group = Processes(together=True)
    assert done == ["cuda:3", "nccl"]
    # What they tell each other lies there too; "meta" stands for a GPU.
    told = []
    monkeypatch.setattr(dist, "all_reduce", lambda value: told.append(str(value.device)))
    with pytest.raises(RuntimeError, match="meta"):
        group.any(True, torch.device("meta"))
    assert told == ["meta"]
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(ValueError, match="--nproc-per-node 4"):
        local_device()
    monkeypatch.delenv("LOCAL_RANK")
    assert local_device() == torch.device("cuda", 0)


def test_dropout_draws_apart_from_the_data_and_again_on_each_run():
    network = nn.Linear(1, 1)
    runs = []

    def loss(generator):
        drawn.append((torch.rand(4), torch.rand(4, generator=generator)))
        return network.weight.square().sum()

    for _ in range(2):
        drawn = []
        train(network, loss, 3, seed=5)
        runs.append(drawn)
    (dropped, data), *_ = runs[0]
    assert not torch.isin(dropped, data).any()
    assert not torch.isin(dropped, runs[0][1][0]).any()
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)


def test_a_batch_is_shared_equally():
    group = Processes()
    assert group.part(6) == 6
    group.size = 4
    with pytest.raises(ValueError, match="multiple"):
        group.part(6)


# --- images --------------------------------------------------------------------------------------


def test_views_are_seeded_and_of_the_stated_size():
    pictures = [torch.rand(3, 20, 30), torch.rand(3, 16, 18)]
    options = Augmentation(8, (0.5, 2.0), rotate=True, channels=True, gain=0.3, saturation=2.0)
    images = Images(pictures, options)
    a = images.batch(6, torch.Generator().manual_seed(1))
    b = images.batch(6, torch.Generator().manual_seed(1))
    assert a.shape == (6, 3, 8, 8)
    assert torch.equal(a, b)
    assert not torch.equal(a, images.batch(6, torch.Generator().manual_seed(2)))
    assert images.event_shape == (3, 8, 8)


def test_images_that_cannot_be_views_are_refused():
    pictures = [torch.rand(3, 20, 30), torch.rand(3, 16, 18)]
    with pytest.raises(ValueError, match="several sizes need a crop"):
        Images(pictures)
    with pytest.raises(ValueError, match="no images"):
        Images([])
    with pytest.raises(ValueError, match=r"shape \(C, H, W\)"):
        Images([torch.rand(4, 4)])
    with pytest.raises(ValueError, match="do not fit"):
        Images(pictures, Augmentation(crop=17))
    with pytest.raises(ValueError, match="one number of channels"):
        Images([torch.rand(1, 4, 4), torch.rand(3, 4, 4)])
    grey = torch.rand(2, 1, 4, 4)
    with pytest.raises(ValueError, match="channels"):
        Images(grey, Augmentation(channels=True))
    with pytest.raises(ValueError, match="3 channels"):
        Images(grey, Augmentation(saturation=1.5))


@settings(max_examples=40, deadline=None)
@given(st.floats(0.2, 20.0), st.integers(0, 1000))
def test_saturation_keeps_grey_hue_and_range(factor, seed):
    generator = torch.Generator().manual_seed(seed)
    image = 2 * torch.rand(3, 5, 5, generator=generator, dtype=torch.float64) - 1
    image[:, 0, 0] = torch.tensor([1.0, 1.0, -1.0])  # at the border of the range already
    image[:, 0, 1] = 0.3
    out = saturated(image, factor, -1.0, 1.0)
    assert out.min() >= -1 - 1e-13
    assert out.max() <= 1 + 1e-13
    torch.testing.assert_close(out.mean(0), image.mean(0), rtol=0, atol=1e-13)
    chroma, before = out - out.mean(0), image - image.mean(0)
    k = (chroma * before).sum(0) / before.square().sum(0).clamp(min=1e-12)
    torch.testing.assert_close(chroma, k * before, rtol=0, atol=1e-5)
    assert (k <= max(factor, 1.0) + 1e-4).all()
    if factor <= 1:
        torch.testing.assert_close(chroma, factor * before, rtol=0, atol=1e-6)
    else:  # as far as the factor says, or until a channel meets the border
        meets = out.abs().amax(0) > 1 - 1e-4
        far = k > factor - 1e-3
        assert (meets | far | (before.abs().amax(0) < 1e-6)).all()


def test_shifts_move_views_and_repeat_the_border():
    image = torch.arange(16.0).reshape(1, 1, 4, 4) / 16
    seen = {
        tuple(v.flatten().tolist())
        for v in Images(image, Augmentation(shift=1)).batch(200, torch.Generator().manual_seed(0))
    }
    padded = nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")[0]
    expected = {
        tuple(padded[:, i : i + 4, j : j + 4].flatten().tolist())
        for i in range(3)
        for j in range(3)
    }
    assert seen == expected


def test_the_network_runs_on_folded_pixels():
    network = unet((1, 16, 24), widths=(16, 32), patch=2)
    assert isinstance(network, SpaceToDepth)
    out = network(torch.randn(2, 1, 16, 24), torch.zeros(2))
    assert out.shape == (2, 1, 16, 24)
    with pytest.raises(ValueError, match="multiples of 4"):
        unet((1, 18, 24), widths=(16, 32), patch=2)


def test_initial_weights_follow_from_the_seed_alone():
    before = torch.get_rng_state()
    a, b, c = (unet((1, 8, 8), (16,), seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


# --- priors trained, saved and loaded ------------------------------------------------------------

KINDS = ("ve", "vp", "sub-vp", "cosine", "flow")
WRITTEN = {"edm": {"sigma_data": 0.6}} | {
    f"{parametrization} {kind}": {
        "parametrization": parametrization,
        "schedule": parts.Noising(kind),
    }
    for parametrization in ("epsilon", "v", "x0", "score", "flow")
    for kind in KINDS
}
NEAREST = {
    "edm": "EDMEulerScheduler",
    "epsilon vp": "DDPMScheduler",
    "v cosine": "DDPMScheduler",
    "flow flow": "FlowMatchEulerDiscreteScheduler",
    "score ve": "ScoreSdeVeScheduler",
    "epsilon sub-vp": None,
    "flow vp": None,
}


def tiny(denoiser, **more):
    return Recipe(
        parts.Data("unused"),
        steps=1,
        batch=2,
        network=parts.Network((16,), patch=2),
        denoiser=parts.Denoiser(network_range=(-1.0, 1.0), sigma_range=(0.01, 40.0), **denoiser),
        **more,
    )


@pytest.mark.parametrize("name", WRITTEN)
def test_a_written_prior_is_the_trained_one_and_keeps_the_contract(tmp_path, name):
    images = list(torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)))
    run = PriorTraining(tiny(WRITTEN[name]), images, (0.0, 1.0))
    trained = run.run()
    run.save(tmp_path)
    loaded = priors.load(tmp_path)
    assert loaded.sigma_range == pytest.approx((0.005, 20.0))
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    for sigma in (0.01, 15.0):
        found, expected = loaded.denoise(x, sigma), trained.denoise(x, sigma)
        scale = expected.abs().max().clamp(min=1)
        assert ((found - expected).abs().max() / scale) < 1e-6, sigma

    exact = priors.load(tmp_path, dtype=torch.float64)

    def double():
        return exact

    contract.test_score_and_denoiser_are_tweedies_pair(double, 0.7)
    contract.test_batch_items_do_not_know_each_other(double)
    contract.test_no_noise_leaves_the_image(double)
    if name in NEAREST:
        import diffusers

        found = tmp_path / "scheduler"
        assert found.is_dir() == (NEAREST[name] is not None)
        if NEAREST[name]:
            kind = getattr(diffusers, NEAREST[name])
            kind.from_pretrained(tmp_path, subfolder="scheduler")


@pytest.mark.parametrize("loss", [
    parts.Loss("denoising", "likelihood"), parts.Loss("denoising", "min-snr", gamma=3.0),
    parts.Loss("sliced", projections=2), parts.Loss("exact"),
], ids=["likelihood", "min-snr", "sliced", "exact"])  # fmt: skip
@pytest.mark.parametrize("levels", [
    parts.Levels(), parts.Levels("geometric"),
    parts.Levels("uniform-time", schedule=parts.Noising("vp")),
], ids=["log-normal", "geometric", "uniform-time"])  # fmt: skip
def test_every_objective_and_density_trains(loss, levels):
    images = list(torch.rand(3, 1, 4, 4))
    recipe = tiny({"sigma_data": 0.5}, loss=loss, levels=levels)
    run = PriorTraining(recipe, images, (0.0, 1.0))
    before = [p.detach().clone() for p in run.network.parameters()]
    run.run()
    assert any(not torch.equal(a, b) for a, b in zip(before, run.network.parameters(), strict=True))


def test_training_starts_from_a_priors_weights(tmp_path):
    images = list(torch.rand(3, 1, 4, 4))
    first = PriorTraining(tiny({"sigma_data": 0.6}), images, (0.0, 1.0))
    first.run()
    first.save(tmp_path)
    again = PriorTraining(tiny({}, init=str(tmp_path), seed=3), images, (0.0, 1.0))
    assert again.sigma_data == pytest.approx(0.6)
    for name, value in again.network.state_dict().items():
        assert torch.equal(value, first.network.state_dict()[name])
    for denoiser, message in (
        ({"sigma_data": 0.4}, "sigma_data"),
        ({"parametrization": "v"}, "parametrization"),
    ):
        with pytest.raises(ValueError, match=f"its {message} is"):
            PriorTraining(tiny(denoiser, init=str(tmp_path)), images, (0.0, 1.0))
    other = replace(tiny({}, init=str(tmp_path)), network=parts.Network((32,), patch=2))
    with pytest.raises(ValueError, match="do not fit"):
        PriorTraining(other, images, (0.0, 1.0))


def test_the_spread_of_the_data_is_measured(tmp_path):
    images = list(torch.rand(200, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 300)
    run = PriorTraining(tiny({}), images, (0.0, 300.0))
    assert run.sigma_data == pytest.approx(2 / math.sqrt(12), rel=0.02)
