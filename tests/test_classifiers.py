"""Classifiers: normalised, learnt right, one head or region of a network, and safely loaded."""

from __future__ import annotations

import os
import pickle
import random
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from forward_model_cases import small
from operator_cases import normal, rng
from torch import nn

import forward_models as fm
from forward_models.classifiers.weights import load_weights


@pytest.mark.parametrize("mode", ["clean", "noisy"])
def test_classifier_is_a_normalised_forward_model(mode):
    network = fm.ConvClassifier(4, (8, 16), (1, 8, 8), noise_conditional=mode == "noisy").eval()
    x = torch.rand(3, 1, 8, 8, generator=rng())
    if mode == "clean":
        model = fm.Classifier(network, 4, (1, 8, 8))
        values = torch.stack([model.log_likelihood(torch.tensor(k), x) for k in range(4)])
        assert model.simulate(x, rng()).shape == (3,)
    else:
        model = fm.NoisyClassifier(network, 4, (1, 8, 8))
        sigma = torch.tensor([0.0, 0.5, 80.0])
        values = torch.stack([model.log_likelihood(torch.tensor(k), x, sigma) for k in range(4)])
        alone = model.log_likelihood(torch.tensor([2]), x[1:2], 0.5)
        torch.testing.assert_close(alone, values[2, 1:2])
        with pytest.raises(ValueError, match="negative"):
            model.log_likelihood(torch.tensor(0), x, -1.0)
    torch.testing.assert_close(values.exp().sum(0), torch.ones(3))
    with pytest.raises(ValueError, match="0 to 3"):
        model.check_measurement(torch.tensor(4))
    with pytest.raises(TypeError, match="int64"):
        model.check_measurement(torch.tensor(1.0))


@pytest.mark.parametrize("noisy", [False, True])
def test_classifier_saving_and_loading(tmp_path, noisy):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = fm.ConvClassifier(2, (8,), (1, 8, 8), noise_conditional=noisy).eval()
    kind = fm.NoisyClassifier if noisy else fm.Classifier
    model = kind(network, 2, (1, 8, 8), (0.0, 2.0))
    fm.save_classifier(model, tmp_path / "c")
    state = torch.random.get_rng_state()
    again = fm.load_classifier(tmp_path / "c")
    assert torch.equal(state, torch.random.get_rng_state())
    assert type(again) is type(model)
    labels, images = torch.arange(4) % 2, torch.rand(4, 1, 8, 8, generator=rng())
    args = (labels, images, 0.1) if noisy else (labels, images)
    torch.testing.assert_close(again.log_likelihood(*args), model.log_likelihood(*args))
    data = bytearray((tmp_path / "c" / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (tmp_path / "c" / "model.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="sha256"):
        fm.load_classifier(tmp_path / "c")
    with pytest.raises(ValueError, match="bundled"):
        fm.load_classifier("no-such-classifier")


def test_a_network_of_another_precision_is_refused():
    model = fm.Classifier(small(), 3, (1, 8, 8))
    with pytest.raises(TypeError, match=r"float32, the network's weights torch\.float64"):
        model.logits(torch.zeros(1, 1, 8, 8))


def test_outputs_that_are_no_logits_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\), expected \(B, num_classes\) = \(2, 4\)"):
        fm.Classifier(small(), 4).logits(torch.rand(2, 1, 8, 8).double())
    with pytest.raises(TypeError, match="Head"):
        fm.Classifier(Heads(), 4).logits(torch.rand(2, 1, 8, 8).double())


# ---- heads, attributes, regions --------------------------------------------------------------


class Heads(nn.Module):
    """A network with two outputs, by name; the level, if there is one, moves the logits."""

    def __init__(self, kind=dict) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(64, 7), requires_grad=False)
        self.kind = kind

    def forward(self, x, level=None):
        logits = x.flatten(1) @ self.weight
        if level is not None:
            logits = logits + level[:, None]
        parts = {"digit": logits[:, :4], "ink": logits[:, 4:]}
        return parts if self.kind is dict else self.kind(parts.values())


X = torch.rand(3, 1, 8, 8, generator=rng()).double()
LOGITS = Heads()(2 * X - 1)


@pytest.mark.parametrize("kind", [dict, tuple, list])
def test_a_head_is_one_of_several_outputs(kind):
    names = ("digit", "ink") if kind is dict else (0, 1)
    for name, key in zip(names, ("digit", "ink"), strict=True):
        head = fm.Head(Heads(kind), name)
        torch.testing.assert_close(head(2 * X - 1), LOGITS[key])
        for missing in ("other", 2, -1):
            with pytest.raises(ValueError, match=f"no output {missing!r}"):
                fm.Head(Heads(kind), missing)(X)
    with pytest.raises(TypeError, match=kind.__name__):
        fm.Head(Heads(kind))(X)


@pytest.mark.parametrize("classes", [slice(1, 3), [2, 0], slice(None, None, 2)])
def test_a_head_of_some_classes_is_the_softmax_over_them(classes):
    model = fm.Classifier(fm.Head(Heads(), "digit", classes), 2)
    among = LOGITS["digit"][:, classes].exp()
    for k in range(2):
        found = model.log_likelihood(torch.tensor(k), X).exp()
        torch.testing.assert_close(found, among[:, k] / among.sum(1))
    for wrong in (slice(4, 9), [4], []):
        with pytest.raises(ValueError, match="choose no columns of 4"):
            fm.Head(Heads(), "digit", wrong)(X)


def test_an_attribute_is_a_sigmoid_clean_and_noisy():
    present, absent = torch.tensor(1), torch.tensor(0)
    network = fm.Attribute(fm.Head(Heads(), "ink"), 2)
    clean = fm.Classifier(network, 2)
    p = LOGITS["ink"][:, 2].sigmoid()
    torch.testing.assert_close(clean.log_likelihood(present, X).exp(), p)
    torch.testing.assert_close(clean.log_likelihood(absent, X).exp(), 1 - p)
    noisy = fm.NoisyClassifier(network, 2)
    level = torch.tensor(0.5).square().add(1e-6).log() / 2  # sigma 0.25 in [0, 1] is 0.5 in [-1, 1]
    expected = (Heads()((2 * X - 1) / 2**0.5)["ink"][:, 2] + level).sigmoid()
    torch.testing.assert_close(noisy.log_likelihood(present, X, 0.25).exp(), expected)


def test_extreme_logits_of_an_attribute_keep_their_precision():
    logits = torch.tensor([[800.0], [-800.0]], dtype=torch.float64)
    model = fm.Classifier(fm.Attribute(nn.Identity(), 0), 2, network_range=(0, 1))
    assert model.log_likelihood(torch.tensor(0), logits).tolist() == [-800, 0]


def test_a_region_sees_its_box_alone():
    model = fm.Classifier(fm.Region(small(), (2, 1, 8, 8)), 3)
    x = torch.rand(2, 1, 12, 10, generator=rng(1)).double().requires_grad_()
    values = model.log_likelihood(torch.tensor(1), x)
    part = x.detach()[:, :, 2:10, 1:9]
    torch.testing.assert_close(
        values, fm.Classifier(small(), 3).log_likelihood(torch.tensor(1), part)
    )
    (gradient,) = torch.autograd.grad(values.sum(), x)
    outside = torch.ones(12, 10, dtype=torch.bool)
    outside[2:10, 1:9] = False
    assert gradient[..., outside].abs().max() == 0
    assert gradient[..., ~outside].abs().min() > 0


def test_a_region_is_resized_without_aliasing():
    """A checkerboard of single pixels, halved: its mean, where plain sampling keeps one colour."""
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    seen = fm.Region(nn.Identity(), (0, 0, 16, 16), (4, 4))(board[None, None].double())
    torch.testing.assert_close(seen, torch.full_like(seen, 0.5), rtol=0, atol=0.02)


def test_regions_that_do_not_fit():
    for box in ((-1, 0, 3, 3), (0, 0, 0, 3)):
        with pytest.raises(ValueError, match="box"):
            fm.Region(small(), box)
    with pytest.raises(ValueError, match="size"):
        fm.Region(small(), (0, 0, 2, 2), (4,))
    with pytest.raises(ValueError, match=r"leaves images of shape \(3, 1, 8, 8\)"):
        fm.Region(small(), (1, 0, 8, 8))(X)


# ---- torchvision -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vision():
    """A small architecture of torchvision with random weights in eval mode."""
    models = pytest.importorskip("torchvision.models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = models.get_model("shufflenet_v2_x0_5", weights=None, num_classes=5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1, generator=rng(1))
            module.running_var.uniform_(0.5, 2, generator=rng(2))
    return "shufflenet_v2_x0_5", network.eval()


def save(state, path: Path, kind: str) -> Path:
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file(dict(state), path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("size", [(40, 64), (96, 71)])
def test_torchvision_by_name_equals_torchvision(vision, tmp_path, kind, size):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    name, network = vision
    path = save(network.state_dict(), tmp_path / "weights", kind)
    mode = "bicubic" if kind == "zip" else "bilinear"
    before = torch.random.get_rng_state()
    model = fm.torchvision_classifier(name, path, 5, resize=49, crop=32, interpolation=mode)
    assert torch.equal(before, torch.random.get_rng_state())
    x = torch.rand(2, 3, *size, generator=rng(3))
    prepare = ImageClassification(
        crop_size=32, resize_size=49, interpolation=InterpolationMode(mode), antialias=True
    )
    with torch.no_grad():
        expected = network(prepare(x))
    assert not model.network.training
    torch.testing.assert_close(model.logits(x), expected, rtol=1e-5, atol=1e-5)
    signed = fm.torchvision_classifier(
        name, path, 5, data_range=(-1, 1), resize=49, crop=32, interpolation=mode
    )
    torch.testing.assert_close(signed.logits(2 * x - 1), expected, rtol=1e-4, atol=1e-4)
    leaf = x.requires_grad_()
    (gradient,) = torch.autograd.grad(model.log_likelihood(torch.tensor(2), leaf).sum(), leaf)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.abs().max()) > 0


def test_grey_images_are_repeated_when_asked(vision, tmp_path):
    name, network = vision
    path = save(network.state_dict(), tmp_path / "w", "safetensors")
    options = {"resize": None, "crop": None, "num_classes": 5}
    x = torch.rand(1, 1, 32, 32, generator=rng(4))
    colour = fm.torchvision_classifier(name, path, **options)
    grey = fm.torchvision_classifier(name, path, grey=True, **options)
    torch.testing.assert_close(grey.logits(x), colour.logits(x.repeat(1, 3, 1, 1)))
    with pytest.raises(ValueError, match="grey=True"):
        colour.logits(x)
    with pytest.raises(ValueError, match=r"expected \(B, 1, H, W\)"):
        grey.logits(x.repeat(1, 3, 1, 1))
    cut = fm.torchvision_classifier(name, path, 5, resize=None, crop=33)
    with pytest.raises(ValueError, match="too small for crop=33"):
        cut.logits(x.repeat(1, 3, 1, 1))


def test_unknown_names_list_near_ones(tmp_path):
    pytest.importorskip("torchvision")
    with pytest.raises(ValueError, match="resnet18"):
        fm.torchvision_classifier("resnet_18", tmp_path)
    with pytest.raises(ValueError, match="known: alexnet"):
        fm.torchvision_classifier("?", tmp_path)


def test_old_files_without_counters_are_read(vision, tmp_path):
    name, network = vision
    state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    fm.torchvision_classifier(name, save(state, tmp_path / "w", "zip"), 5)


def broken(state, fault):
    state = OrderedDict(state)
    first = next(iter(state))
    if fault == "missing":
        del state[first]
    elif fault == "unexpected":
        state["module.extra"] = torch.zeros(2)
    elif fault == "shape":
        state[first] = state[first][:1].clone()
    elif fault == "finite":
        state[first] = torch.full_like(state[first], torch.nan)
    elif fault == "dtype":
        state[first] = state[first].long()
    elif fault == "large":
        state["extra"] = torch.zeros(10**7)
    return state


FAULTS = {
    "missing": "1 missing: conv1.0.weight",
    "unexpected": "1 unexpected: module.extra",
    "shape": r"1 of another shape: conv1.0.weight \(1, 3, 3, 3\) instead of \(24, 3, 3, 3\)",
    "finite": "not finite",
    "dtype": "int64, expected torch.float32",
    "large": "more than",
}


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("fault", list(FAULTS))
def test_weights_of_another_network_are_refused(vision, tmp_path, kind, fault):
    name, network = vision
    path = save(broken(network.state_dict(), fault), tmp_path / "w", kind)
    with pytest.raises(ValueError, match=FAULTS[fault]):
        fm.torchvision_classifier(name, path, 5)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("kept", [0, 5, 200, 0.5, 0.99])
def test_truncated_files_are_refused(vision, tmp_path, kind, kept):
    name, network = vision
    path = save(network.state_dict(), tmp_path / "w", kind)
    data = path.read_bytes()
    path.write_bytes(data[: kept if kept >= 5 or kept == 0 else int(kept * len(data))])
    with pytest.raises(ValueError, match="corrupt"):
        fm.torchvision_classifier(name, path, 5)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_damaged_bytes_are_refused_or_harmless(tmp_path, kind):
    def network():
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))

    path = save(network().state_dict(), tmp_path / "w", kind)
    data, places, refusals = path.read_bytes(), random.Random(0), []
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(places.choice((1, 3, 10))):
            changed[places.randrange(len(data))] = places.randrange(256)
        path.unlink()
        path.write_bytes(changed)
        try:
            load_weights(network(), path)
        except ValueError as error:
            refusals.append(str(error))
    assert len(refusals) > 50
    assert all(str(path) in refusal for refusal in refusals)


class Touch:
    """A pickle that writes a file when it is read without care."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy"])
def test_no_code_in_a_file_is_run(vision, tmp_path, kind):
    canary, path = tmp_path / "canary", tmp_path / "w"
    state = {"conv1.0.weight": Touch(canary)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(state, protocol=2))
    else:
        save(state, path, kind)
    with pytest.raises(ValueError, match="never run"):
        fm.torchvision_classifier(vision[0], path, 5)
    assert not canary.exists()
    pickle.loads(pickle.dumps(state))
    assert canary.exists()


def test_an_archive_that_inflates_is_refused_before_it_is_read(vision, tmp_path):
    path = tmp_path / "w"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", bytes(10**8))
    assert path.stat().st_size < 10**6
    with pytest.raises(ValueError, match="declares 100000000 bytes"):
        fm.torchvision_classifier(vision[0], path, 5)


def test_only_regular_files_are_opened(vision, tmp_path):
    with pytest.raises(FileNotFoundError, match="local file"):
        fm.torchvision_classifier(vision[0], tmp_path / "none", 5)
    with pytest.raises(ValueError, match="regular"):
        fm.torchvision_classifier(vision[0], tmp_path, 5)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="regular"):
        fm.torchvision_classifier(vision[0], tmp_path / "pipe", 5)
    path = tmp_path / "w"
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="list, expected a dictionary of tensors"):
        fm.torchvision_classifier(vision[0], path, 5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"resize": 100}, "crop=224"),
        ({"resize": 0}, "resize"),
        ({"interpolation": "nearest"}, "bilinear or bicubic"),
        ({"std": (1, 1, 0)}, "std"),
        ({"mean": (0.5,)}, "3 values"),
    ],
)
def test_impossible_preparation(options, match):
    with pytest.raises(ValueError, match=match):
        fm.Preprocessed(nn.Identity(), **options)


def test_a_network_in_training_mode_is_refused():
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 2))
    model = fm.Classifier(network, 2, (1, 4, 4))
    x = torch.rand(3, 1, 4, 4)
    with pytest.raises(ValueError, match=r"BatchNorm1d '1' is in training mode"):
        model.log_likelihood(torch.tensor([1]), x)
    network.eval()
    together = model.log_likelihood(torch.tensor([1]), x)
    torch.testing.assert_close(model.log_likelihood(torch.tensor([1]), x[:1]), together[:1])
