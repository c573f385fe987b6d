"""A clean classifier distilled into a noise-conditional one: p_sigma(y | x) = E[p(y | x0) | x]."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import forward_models as fm
import inverse
import priors
from inverse import cli
from inverse.classifier_training import ClassifierRecipe, Labelled, Levels, Network
from priors.training import Optimizer

VARIANCE = 0.3


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small lose time by sharing their work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mixture():
    """Two classes of images 4 x 4 that overlap: left half bright, right half bright."""
    image = torch.full((1, 4, 4), 0.3)
    image[..., :2] = 0.7
    return priors.Mixture(torch.stack([image, image.flip(-1)]), VARIANCE, torch.tensor([0.3, 0.7]))


class Exact(nn.Module):
    """log w_k N(x0; m_k, v) of the mixture, as a network on images in [-1, 1]."""

    def forward(self, u):
        prior, x0 = mixture(), (u + 1) / 2
        apart = (x0[:, None] - prior.means.to(u)).flatten(2).square().sum(2)
        return prior.weights.to(u).log() - apart / (2 * VARIANCE)


def teacher():
    return fm.Classifier(Exact(), 2, (1, 4, 4))


def settings(**changes):
    plan = Optimizer(learning_rate=5e-3, warmup=20, weight_decay=1e-2)
    levels = Levels("geometric", (0.2, 6.0))
    return {"steps": 300, "batch": 128, "channels": (16,), "levels": levels, "optimizer": plan,
            **changes}  # fmt: skip


@cache
def distilled():
    images = mixture().sample(3000, torch.Generator().manual_seed(5)).float()
    return inverse.distil(teacher(), images, **settings())


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0, 2.0])
def test_it_learns_the_mean_of_the_clean_probability_given_x(sigma):
    prior, g = mixture(), torch.Generator().manual_seed(1)
    x0 = prior.sample(2000, g).float()
    x = x0 + sigma * torch.randn(x0.shape, generator=g)
    exact = prior.responsibilities(x.double(), sigma).log()
    model = distilled()
    with torch.no_grad():
        learned = torch.stack([model.log_likelihood(torch.tensor(k), x, sigma) for k in (0, 1)], 1)
        clean = teacher().logits(x).log_softmax(1)

    def divergence(log_q):
        return float((exact.exp() * (exact - log_q)).sum(1).mean())

    assert divergence(learned) < 0.01  # nats
    # The clean classifier is too sure of what it says of a noisy image.
    assert divergence(learned) < 0.2 * divergence(clean) or sigma < 0.5


def test_it_guides_wherever_a_time_dependent_model_may():
    posterior = inverse.condition(mixture(), distilled(), 0)
    found = inverse.sample(posterior, n=40, method="exact", steps=20, seed=0, dtype=torch.float32)
    right = teacher().logits(found.x).softmax(1)[:, 0].mean()
    assert float(right) > 0.7  # 0.3 without guidance; exact: 0.84


def test_an_interrupted_distillation_goes_on_bit_for_bit_and_knows_its_teacher(tmp_path):
    images = mixture().sample(64, torch.Generator().manual_seed(5)).float()
    run = lambda model=None, **more: inverse.distil(  # noqa: E731
        model or teacher(), images, **settings(steps=12, batch=8, every=4) | more
    )
    state = torch.get_rng_state()
    whole = run()

    def stop(step):
        if step.step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=tmp_path, callback=stop)
    seen = []
    again = run(checkpoint=tmp_path, callback=lambda step: seen.append(step.step))
    assert seen == [9, 10, 11, 12]
    assert torch.equal(state, torch.get_rng_state())
    for a, b in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b)
    other = fm.ConvClassifier(2, (8,), (1, 4, 4)).eval()
    with pytest.raises(ValueError, match="data differs"):
        run(fm.Classifier(other, 2, (1, 4, 4)), checkpoint=tmp_path)
    with pytest.raises(ValueError, match="holds a run of other settings: levels"):
        run(checkpoint=tmp_path, levels=Levels("log-normal", (0.2, 6.0)))
    with pytest.raises(ValueError, match="every must be"):
        run(checkpoint=tmp_path, every=0)


def test_what_cannot_teach_is_refused():
    images = torch.rand(4, 1, 4, 4)
    with pytest.raises(TypeError, match="clean Classifier"):
        inverse.distil(distilled(), images)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        inverse.distil(teacher(), images[:, 0])
    with pytest.raises(ValueError, match="not finite"):
        inverse.distil(teacher(), images / 0)
    with pytest.raises(ValueError, match=r"images must have the classifier's shape \(N, 1, 4, 4\)"):
        inverse.distil(teacher(), torch.rand(4, 1, 4, 3))
    with pytest.raises(ValueError, match="images must be in the classifier's data range"):
        inverse.distil(teacher(), 200 * images)
    with pytest.raises(ValueError, match="needs noisy: true"):
        ClassifierRecipe(Labelled("x"), Network(2), 10, noisy=False, teacher="digits")


def test_the_command_trains_from_a_recipe_with_a_teacher(tmp_path, capsys):
    network = fm.ConvClassifier(2, (8,), (1, 4, 4)).eval()
    fm.save_classifier(fm.Classifier(network, 2, (1, 4, 4)), tmp_path / "clean")
    np.savez(tmp_path / "drawn.npz", drawn=np.random.default_rng(0).random((20, 4, 4), "float32"))
    (tmp_path / "recipe.yaml").write_text(
        f"kind: classifier\nsteps: 4\nbatch: 8\nteacher: {tmp_path / 'clean'}\n"
        f"data: {{path: {tmp_path / 'drawn.npz'}, images: drawn, range: [0, 1]}}\n"
        "network: {classes: 2, channels: [8]}\n"
    )
    out = tmp_path / "noisy"

    def run(*changes, force=()):
        recipe = str(tmp_path / "recipe.yaml")
        return cli.main(["train", recipe, *changes, "--out", str(out), *force])

    assert run() == 0
    assert isinstance(fm.load_classifier(out), fm.NoisyClassifier)
    assert json.loads((out / "run.json").read_text())["images"]["training"] == 20
    assert run("network.classes=3", force=["--force"]) == 2
    assert "a teacher of 2 classes" in capsys.readouterr().err
    assert run(f"teacher={out}", force=["--force"]) == 2
    assert "is noise-conditional; name a clean one" in capsys.readouterr().err
