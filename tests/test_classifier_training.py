"""Classifiers: what training converges to, how it resumes, and how calibration is measured."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from operator_cases import rng
from torch import nn

import forward_models as fm
from forward_models import calibration_error
from inverse import cli
from inverse.classifier_training import (
    ClassifierRecipe,
    ClassifierTraining,
    Labelled,
    Levels,
    Network,
    Report,
)
from priors.training import Augmentation, Optimizer
from priors.training.recipe import Monitor
from priors.training.recipe_file import read


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small lose time by sharing their work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def halves(size):
    """Two images: the left half bright, the right half bright."""
    image = torch.full((1, size, size), 0.3)
    image[..., : size // 2] = 0.7
    return torch.stack([image, image.flip(-1)])


def recipe(**changes):
    settings = {
        "data": Labelled("none"),
        "network": Network(2, (8,)),
        "steps": 40,
        "batch": 32,
        "optimizer": Optimizer(learning_rate=5e-3, warmup=5, weight_decay=1e-2),
        "levels": Levels("geometric", (0.02, 1.0)),
    }
    return ClassifierRecipe(**(settings | changes))


def exact(x, sigma, images):
    """p_sigma(class 1 | x) of two equally probable images, known in closed form."""
    distance = ((x[:, None] - images[None]) ** 2).flatten(2).sum(2) / (2 * sigma**2)
    return torch.softmax(-distance, dim=1)


# ---- what training converges to --------------------------------------------------------------


@pytest.mark.parametrize(
    "levels",
    [
        Levels("geometric", (0.6, 6.0)),
        Levels("log-normal", (0.6, 6.0), mean=0.7, std=0.6),
        Levels("uniform-time", (0.6, 6.0), schedule="flow"),
    ],
    ids=["geometric", "log-normal", "uniform-time"],
)
def test_a_noisy_classifier_learns_the_exact_posterior(levels):
    """Two possible images: p_sigma(y | x) is a logistic function of x, at every trained level."""
    images = halves(4)
    plan = recipe(network=Network(2, (16,)), steps=300, batch=64, levels=levels)
    run = ClassifierTraining(plan, list(images), torch.arange(2), (0.0, 1.0))
    model = run.run()
    assert isinstance(model, fm.NoisyClassifier)
    for sigma in (0.5, 1.0, 2.0):  # data units: half the network's
        x = images[torch.arange(512) % 2]
        x = x + sigma * torch.randn(x.shape, generator=rng(3))
        with torch.no_grad():
            learned = model.log_likelihood(torch.tensor(1), x, sigma).exp()
        assert float((learned - exact(x, sigma, images)[:, 1]).abs().mean()) < 0.05


def test_a_clean_classifier_tells_its_images_apart():
    losses = []
    plan = recipe(noisy=False)
    model = ClassifierTraining(plan, list(halves(8)), torch.arange(2), (0.0, 1.0)).run(
        callback=lambda step: losses.append(step.loss)
    )
    assert isinstance(model, fm.Classifier)
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])
    assert float(model.log_likelihood(torch.arange(2), halves(8)).exp().min()) > 0.9


def test_the_units_of_the_data_do_not_matter():
    """Images in other units, labels the same: the same network, equal probabilities."""
    images, labels = halves(8), torch.arange(2)
    one = ClassifierTraining(recipe(steps=5), list(images), labels, (0.0, 1.0)).run()
    other = ClassifierTraining(
        recipe(steps=5), list(1000 * images - 200), labels, (-200.0, 800.0)
    ).run()
    x = images + 0.3 * torch.randn(images.shape, generator=rng())
    with torch.no_grad():
        first = one.log_likelihood(labels, x, 0.3)
        second = other.log_likelihood(labels, 1000 * x - 200, 300.0)
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("noisy", [False, True])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, noisy):
    plan = recipe(
        noisy=noisy, steps=12, augmentation=Augmentation(flip=True, shift=1),
        monitor=Monitor(checkpoint=4),
    )  # fmt: skip
    make = lambda **more: ClassifierTraining(  # noqa: E731
        recipe(**{**vars(plan), **more}), list(halves(8)), torch.arange(2), (0.0, 1.0)
    )
    state = torch.random.get_rng_state()
    whole = make().run()

    def stop(step):
        if step.step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make().run(tmp_path, stop)
    seen = []
    again = make().run(tmp_path, lambda step: seen.append(step.step))
    assert seen == [9, 10, 11, 12]
    assert torch.equal(state, torch.random.get_rng_state())
    for a, b in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="batch was 32, is 16"):
        make(batch=16).run(tmp_path)


def test_settings_that_mean_nothing_are_refused():
    images, labels = list(halves(8)), torch.arange(2)
    with pytest.raises(ValueError, match="3 labels for 2 images"):
        ClassifierTraining(recipe(), images, torch.zeros(3, dtype=torch.int64), (0.0, 1.0))
    with pytest.raises(ValueError, match="0 to 1"):
        ClassifierTraining(recipe(), images, labels + 1, (0.0, 1.0))
    with pytest.raises(ValueError, match="steps must be at least 1"):
        recipe(steps=0)
    with pytest.raises(ValueError, match="draws no samples"):
        recipe(monitor=Monitor(samples=10))
    with pytest.raises(ValueError, match="scale must be positive"):
        recipe(scale=-1.0)
    with pytest.raises(ValueError, match="go together"):
        Labelled("x.npz", held_out_images="x")
    with pytest.raises(ValueError, match="0 < low < high"):
        Levels(sigma_range=(1.0, 0.1))
    with pytest.raises(ValueError, match="levels must be positive"):
        Report((0.0,))


# ---- calibration -----------------------------------------------------------------------------


class Posterior(nn.Module):
    """The exact class posterior of `halves(4)`, its logits multiplied by `sharpness`."""

    def __init__(self, sharpness=1.0):
        super().__init__()
        self.sharpness = sharpness

    def forward(self, scaled, feature):
        s = torch.sqrt((2 * feature).exp() - 1e-6)[:, None, None, None]
        x = scaled * torch.sqrt(1 + s**2)
        return self.sharpness * exact(x, s.reshape(-1, 1), halves(4).to(x)).log()


def classifier(sharpness=1.0):
    return fm.NoisyClassifier(Posterior(sharpness), 2, (1, 4, 4), (0.0, 1.0), (0.0, 1.0), 1.0)


def test_an_exact_classifier_is_calibrated_and_a_sharpened_one_is_not():
    labels = torch.arange(6000) % 2
    x0 = halves(4)[labels]
    for sigma in (0.5, 1.0, 3.0):
        good = calibration_error(classifier(), x0, labels, sigma)
        assert good.error < good.ceiling
        assert good.floor < good.ceiling < 2 * good.floor
        # Phi(d / 2) of the images' distance d = 1.6 over sigma.
        right = 0.5 * (1 + math.erf(0.8 / sigma / math.sqrt(2)))
        assert abs(good.accuracy - right) < 5 * math.sqrt(right * (1 - right) / 6000)
        sharp = calibration_error(classifier(3.0), x0, labels, sigma)
        assert sharp.accuracy == good.accuracy
        assert sharp.error > 3 * sharp.ceiling
        assert sharp.log_loss > good.log_loss


def test_the_error_is_that_of_bins_of_equal_size():
    labels = torch.arange(600) % 2
    x0, sigma = halves(4)[labels], 1.0
    found = calibration_error(classifier(2.0), x0, labels, sigma, bins=7, seed=5, batch=600)
    x = x0 + sigma * torch.randn(x0.shape, generator=torch.Generator().manual_seed(5))
    p = torch.softmax(classifier(2.0).logits(x, sigma).double(), dim=1)
    confidence, chosen = p.max(1)
    order = confidence.argsort().numpy()
    right = (chosen == labels).double().numpy()
    parts = np.array_split(order, 7)
    error = sum(len(i) / 600 * abs(right[i].mean() - confidence.numpy()[i].mean()) for i in parts)
    assert found.error == pytest.approx(error, abs=1e-12)
    assert found.accuracy == right.mean()
    assert found.log_loss == pytest.approx(float(-p.log()[torch.arange(600), labels].mean()))
    assert found.count == 600


def test_the_floor_is_the_mean_error_of_calibrated_runs():
    """Over other noise, an exact classifier has the floor on average, and rarely the ceiling."""
    labels = torch.arange(900) % 2
    x0 = halves(4)[labels]
    runs = [calibration_error(classifier(), x0, labels, 1.0, seed=s) for s in range(40)]
    error = np.array([r.error for r in runs])
    assert abs(error.mean() - np.mean([r.floor for r in runs])) < 4 * error.std() / 40**0.5
    assert sum(r.error > r.ceiling for r in runs) <= 7


def test_calibration_refuses_what_does_not_fit():
    labels, x0 = torch.arange(4) % 2, halves(4)[torch.arange(4) % 2]
    for bad, words in (
        ({"labels": labels[:3]}, "3 labels for 4 images"),
        ({"labels": labels + 1}, "0 to 1"),
        ({"x": x0[:, :, :3]}, "shape"),
        ({"sigma": -1.0}, "at least 0"),
        ({"bins": 5}, "at most the 4 images"),
        ({"bins": 0}, "bins"),
    ):
        with pytest.raises(ValueError, match=words):
            calibration_error(**({"classifier": classifier(), "x": x0, "labels": labels} | bad))


# ---- the command -----------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    labels = np.arange(60) % 2
    images = (halves(8)[labels, 0].numpy() * 255).astype(np.uint8)
    np.savez(
        tmp_path / "data.npz", x_train=images[:40], y_train=labels[:40], x_dev=images[40:],
        y_dev=labels[40:], wrong=labels[:7],
    )  # fmt: skip
    return tmp_path / "data.npz"


TEXT = """
name: two
kind: classifier
noisy: {noisy}
data: {{path: {path}, held_out_images: x_dev, held_out_labels: y_dev}}
network: {{classes: 2, channels: [8]}}
levels: {{kind: log-normal, sigma_range: [0.02, 4]}}
steps: 10
batch: 16
report: {{levels: [0.5, 2.0]}}
"""


@pytest.mark.parametrize("noisy", [False, True])
def test_the_command_trains_a_classifier(tmp_path, data, noisy, capsys):
    file, out = tmp_path / "recipe.yaml", tmp_path / "out"
    file.write_text(TEXT.format(noisy=str(noisy).lower(), path=data))
    assert cli.main(["train", str(file), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "accuracy" in printed
    assert f"forward_models.load_classifier({str(out)!r}) reads it" in printed
    model = fm.load_classifier(out)
    assert isinstance(model, fm.NoisyClassifier if noisy else fm.Classifier)
    rows = json.loads((out / "run.json").read_text())["calibration"]
    assert [row["sigma"] for row in rows] == ([0.0, 0.25, 1.0] if noisy else [0.0])
    with np.load(data) as arrays:
        held = torch.from_numpy(arrays["x_dev"][:, None] / 255).float()
        labels = torch.from_numpy(arrays["y_dev"])
    for row in rows:
        found = calibration_error(model, held, labels, row["sigma"])
        assert vars(found) == pytest.approx(row, abs=1e-6)
    assert not (out / ".state").exists()
    first = (out / "model.safetensors").read_bytes()
    assert cli.main(["train", str(out / "recipe.yaml"), "--out", str(tmp_path / "b")]) == 0
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == first
    assert cli.main(["train", str(file), "--out", str(out)]) == 2
    assert "holds config.json already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.labels=wrong", "expected the whole numbers of the classes of 40 images"),
        (
            "data.held_out_labels=none",
            "holds no array 'none'; name one of x_train, y_train, x_dev, y_dev, wrong under data, "
            "held_out_labels: in the recipe",
        ),
        ("data.images=none", "under data, images: in the recipe"),
        ("network.classes=1", "num_classes"),
        ("levels.kind=gaussian", "levels.kind must be one of geometric, log-normal, uniform-time"),
        ("noisi=true", "unknown key noisi; did you mean noisy?"),
        ("kind=prior", "unknown key"),
    ],
)
def test_bad_recipes_are_refused_in_one_line(tmp_path, data, change, words, capsys):
    file = tmp_path / "recipe.yaml"
    file.write_text(TEXT.format(noisy="true", path=data))
    assert cli.main(["train", str(file), change, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


BUNDLED = Path(fm.classifiers.__file__).parent / "bundled"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in BUNDLED.glob("*/recipe.yaml")))
def test_bundled_classifiers_stand_beside_the_recipe_of_their_network(name):
    plan = read(BUNDLED / name / "recipe.yaml", (), lambda values: ClassifierRecipe)
    model = fm.load_classifier(name)
    assert (plan.name, plan.noisy) == (name, isinstance(model, fm.NoisyClassifier))
    assert list(plan.network.channels) == model.network.config["channels"]
    card = (BUNDLED / name / "README.md").read_text()
    table = [line for line in card.splitlines() if line.startswith("| ")]
    assert "calibration error" in table[0]
    assert len(table) == 1 + (1 + len(plan.report.levels) if plan.noisy else 1)
