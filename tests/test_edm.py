"""EDM checkpoints against formulas and networks written from the paper; pickles run nothing."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import sys
import types
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from checkpoint_files import assert_close, noisy, write
from edm_reference import cosine_levels, denoised, dhariwal, layout, random_state, song
from torch import Tensor

import priors
from priors.pretrained import edm, edm_pickle
from priors.pretrained.edm_networks import Layout
from priors.pretrained.edm_settings import PUBLISHED

NCSNPP = {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
CASES: dict[str, dict[str, Any]] = {
    "DDPM++ under EDM": song(class_name="EDMPrecond", augment_dim=9),
    "NCSN++ under EDM": song(class_name="EDMPrecond", sigma_data=0.7, label_dim=4, **NCSNPP),
    "DDPM++ under VP": song(class_name="VPPrecond", label_dim=4, num_blocks=2),
    "NCSN++ under VE": song(class_name="VEPrecond", **NCSNPP),
    "skips on both sides": song(
        class_name="VEPrecond",
        channel_mult=[1, 2, 2],
        encoder_type="skip",
        decoder_type="skip",
        resample_filter=[1, 3, 3, 1],
    ),
    "ADM under EDM": dhariwal(class_name="EDMPrecond", label_dim=5, augment_dim=3, num_blocks=2),
    "ADM under iDDPM": dhariwal(
        class_name="iDDPMPrecond", label_dim=5, attn_resolutions=[8, 4], channel_mult=[2, 4]
    ),
}


def label_of(settings: dict[str, Any]) -> int | None:
    return 2 if settings["label_dim"] else None


def levels(settings: dict[str, Any]) -> Tensor:
    if settings["class_name"] == "iDDPMPrecond":
        table = cosine_levels(settings)
        return torch.tensor([table[-10], table[500], table[200]], dtype=torch.float64)
    return torch.tensor([0.05, 0.8, 30.0], dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_the_denoiser_is_the_papers(case, dtype, tmp_path):
    settings = CASES[case]
    state = random_state(settings)
    prior = priors.load(
        write(tmp_path, state, "safetensors" if dtype == torch.float32 else "pt"),
        settings=settings,
        class_label=label_of(settings),
        dtype=dtype,
    )
    sigma = levels(settings)
    x = noisy(sigma, 8)
    expected = denoised(state, settings, x, sigma, label_of(settings))
    found = prior.denoise(x.to(dtype), sigma.to(dtype))
    assert_close(found.double(), expected, 1e-5 if dtype == torch.float32 else 1e-10)
    assert prior.event_shape == (3, 8, 8)
    assert prior.data_range == (-1, 1)


SIGMA_RANGES = {
    "DDPM++ under EDM": (0.002, 80),
    "DDPM++ under VP": (0.0010055, 152.16),
    "NCSN++ under VE": (0.02, 100),
    "ADM under iDDPM": (0.0064, 80),
}


@pytest.mark.parametrize("case", SIGMA_RANGES)
def test_noise_levels_are_the_preconditioners(case, tmp_path):
    settings = CASES[case]
    prior = priors.load(
        write(tmp_path, random_state(settings)),
        settings=settings,
        class_label=label_of(settings),
        data_range=(0, 1),
    )
    assert [2 * s for s in prior.sigma_range] == pytest.approx(SIGMA_RANGES[case], rel=2e-2)


@torch.no_grad()
def test_iddpm_times_run_between_the_levels(tmp_path):
    settings = CASES["ADM under iDDPM"]
    prior = priors.load(write(tmp_path, random_state(settings)), settings=settings, class_label=0)
    table = torch.tensor(cosine_levels(settings), dtype=torch.float64)[:-1]
    j = torch.tensor([0, 1, 500, 999])
    assert torch.allclose(prior.time(table[j]), 999.0 - j.double(), atol=1e-6)
    between = (table[500] * table[501]).sqrt()[None]
    assert float(prior.time(between)) == pytest.approx(498.5)


@torch.no_grad()
def test_no_class_where_it_was_trained(tmp_path):
    settings = CASES["DDPM++ under VP"] | {"label_dropout": 0.1}
    state = random_state(settings)
    prior = priors.load(
        write(tmp_path, state), settings=settings, class_label="null", dtype=torch.float64
    )
    sigma = levels(settings)
    x = noisy(sigma, 8)
    assert_close(prior.denoise(x, sigma), denoised(state, settings, x, sigma, None), 1e-10)


def test_names_may_be_the_preconditioners(tmp_path):
    settings = CASES["ADM under iDDPM"]
    state = {f"model.{k}": v for k, v in random_state(settings).items()}
    state["u"] = torch.tensor(cosine_levels(settings))
    path = write(tmp_path, state)
    priors.load(path, settings=settings, class_label=1)
    with pytest.raises(ValueError, match="table u of noise levels is not that"):
        priors.load(path, settings=settings | {"M": 1000, "C_2": 0.1}, class_label=1)


def test_settings_may_lie_beside_the_file(tmp_path):
    settings = CASES["NCSN++ under EDM"]
    path = write(tmp_path, random_state(settings))
    (tmp_path / "model.json").write_text(json.dumps(settings))
    found = priors.load(path, class_label=1)
    assert found.sigma_data == settings["sigma_data"]
    with pytest.raises(ValueError, match="label_dim is 5"):
        priors.load(path, class_label=1, settings=settings | {"label_dim": 5})


def test_another_size_of_images(tmp_path):
    settings = CASES["DDPM++ under EDM"]
    path = write(tmp_path, random_state(settings))
    prior = priors.load(path, settings=settings, event_shape=(3, 16, 12))
    assert prior.denoise(torch.zeros(1, 3, 16, 12), 1.0).shape == (1, 3, 16, 12)
    with pytest.raises(ValueError, match="multiples of 2"):
        priors.load(path, settings=settings, event_shape=(3, 9, 8))


# --- published configurations ---------------------------------------------------------------

MILLIONS = {  # of the paper's table 7
    "edm-cifar10-32x32-uncond-vp": 56,
    "edm-cifar10-32x32-uncond-ve": 56,
    "edm-ffhq-64x64-uncond-vp": 62,
    "edm-ffhq-64x64-uncond-ve": 63,
    "edm-imagenet-64x64-cond-adm": 296,
}


def complete(name: str) -> dict[str, Any]:
    """A published model's settings, what they leave to EDM's defaults put in."""
    known = PUBLISHED[name]
    if known["model_type"] == "DhariwalUNet":
        return dhariwal(**known)
    defaults = {"num_blocks": 4, "attn_resolutions": [16], "channel_mult": [1, 2, 2, 2]}
    return song(**defaults | known)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations(name):
    settings = complete(name)
    shapes = layout(settings)
    tensors = {
        key: torch.full(shape, 0.25)
        if key.endswith("filter")
        else torch.empty(shape, device="meta")
        for key, shape in shapes.items()
    }
    assert edm.recognises(tensors)
    told = Layout(tensors, "file")
    network, fitting = told.network(None)
    found = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    assert found == {k: tuple(v.shape) for k, v in fitting.items()}
    for key, value in PUBLISHED[name].items():
        if key in told.told():
            assert told.told()[key] == (set(value) if key == "attn_resolutions" else value), key
    if name in MILLIONS:
        count = sum(math.prod(s) for k, s in shapes.items() if not k.endswith("filter"))
        assert abs(count / 1e6 - MILLIONS[name]) < 1


# --- pickles -----------------------------------------------------------------------------------

CANARY = "EDM_CANARY"


class Persistent:
    """Pickled as EDM's persistence does: a call with the source of the class and its state."""

    def __init__(self, name: str, source: str, state: dict[str, Any]) -> None:
        self.name, self.source, self.state = name, source, state

    def __reduce__(self):
        meta = {
            "type": "class",
            "version": 6,
            "module_src": self.source,
            "class_name": self.name,
            "state": self.state,
        }
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


@pytest.fixture
def persistence(monkeypatch, tmp_path):
    """The modules that name what such pickles name; calling them leaves a trace."""

    def _reconstruct_persistent_obj(meta):
        (tmp_path / "canary").touch()

    class EasyDict(dict):
        pass

    for name, module, things in (
        ("torch_utils", "torch_utils", ()),
        ("torch_utils.persistence", "torch_utils.persistence", (_reconstruct_persistent_obj,)),
        ("dnnlib", "dnnlib", ()),
        ("dnnlib.util", "dnnlib.util", (EasyDict,)),
    ):
        made = types.ModuleType(module)
        for thing in things:
            thing.__module__ = module
            thing.__qualname__ = thing.__name__
            setattr(made, thing.__name__, thing)
        monkeypatch.setitem(sys.modules, name, made)
    return EasyDict


def tree(state: dict[str, Tensor], source: str) -> dict[str, Any]:
    """Nested module states, as torch keeps them, from flat names."""

    def node(tensors: dict[str, Tensor]) -> dict[str, Any]:
        inner: dict[str, dict[str, Tensor]] = {}
        own: dict[str, Tensor] = {}
        for name, value in tensors.items():
            head, _, rest = name.partition(".")
            if rest:
                inner.setdefault(head, {})[rest] = value
            else:
                own[head] = value
        buffers = {k: v for k, v in own.items() if k in ("resample_filter", "freqs", "u")}
        modules: dict[str, Any] = OrderedDict()
        for name, tensors_of in inner.items():
            if name in ("enc", "dec"):
                modules[name] = torch.nn.ModuleDict()
                modules[name].__dict__.update(node(tensors_of))
            else:
                modules[name] = Persistent("Inner", source, node(tensors_of))
        return {
            "training": False,
            "skip_scale": numpy.float64(0.5) ** 0.5,
            "array": numpy.arange(3),
            "_parameters": OrderedDict(
                {k: torch.nn.Parameter(v) for k, v in own.items() if k not in buffers},
                nothing=None,
            ),
            "_buffers": OrderedDict(buffers),
            "_non_persistent_buffers_set": set(),
            "_modules": modules,
        }

    return node(state)


def published_pickle(settings: dict[str, Any], state: dict[str, Tensor], easy: type) -> Any:
    kwargs = {k: v for k, v in settings.items() if k != "class_name"} | {"use_fp16": False}
    source = f"import os\nos.environ[{CANARY!r}] = 'ran'\n"
    tensors = {f"model.{k}": v for k, v in state.items()}
    inside = tree(tensors, source) | {"_init_args": (), "_init_kwargs": kwargs}
    network = Persistent(settings["class_name"], source, inside)
    loss = Persistent("EDMLoss", source, {"P_mean": -1.2})
    return {"ema": network, "loss_fn": loss, "augment_pipe": None, "dataset_kwargs": easy(a=1)}


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("case", ["NCSN++ under EDM", "ADM under iDDPM"])
def test_a_pickle_gives_its_tensors_and_settings(case, protocol, persistence, tmp_path):
    settings = CASES[case]
    state = random_state(settings)
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps(published_pickle(settings, state, persistence), protocol))
    content = edm_pickle.read_weights(path)
    assert content["class_name"] == settings["class_name"]
    kept = {k: v for k, v in settings.items() if k != "class_name"} | {"use_fp16": False}
    assert content["init_kwargs"] == kept
    assert set(content["state_dict"]) == {f"model.{k}" for k in state}
    for name, value in state.items():
        assert torch.equal(content["state_dict"][f"model.{name}"], value)

    prior = priors.load(path, class_label=2, dtype=torch.float64)  # needs no settings
    sigma = levels(settings)
    x = noisy(sigma, 8)
    assert_close(prior.denoise(x, sigma), denoised(state, settings, x, sigma, 2), 1e-10)
    with pytest.raises(ValueError, match="says otherwise than settings: label_dim"):
        priors.load(path, class_label=2, settings={"label_dim": 3})
    with pytest.raises(ValueError, match="more than max_parameters = 100"):
        priors.load(path, class_label=2, max_parameters=100)
    assert CANARY not in os.environ
    assert not (tmp_path / "canary").exists()


def test_views_of_one_storage_and_half_precision(persistence, tmp_path):
    whole = torch.arange(12.0).half()
    parts = {"a": whole[2:8].view(2, 3).T, "b": whole[::3]}
    network = Persistent("EDMPrecond", "", tree(parts, ""))
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps(network))
    found = edm_pickle.read_weights(path)["state_dict"]
    assert torch.equal(found["a"], parts["a"])
    assert torch.equal(found["b"], parts["b"])
    assert found["a"].dtype == torch.float16


class Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Stretched:
    """An empty tensor that is then told to be large."""

    def __reduce__(self):
        empty = Call(torch.storage._load_from_bytes, legacy(0))
        state = (empty, 0, (30_000_000,), (1,))
        return torch._utils._rebuild_tensor_v2, (empty, 0, (0,), (1,), False, None), state


def legacy(count: int) -> bytes:
    """A storage as it stands in a pickle."""
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.save(torch.ones(count).storage(), file, _use_new_zipfile_serialization=False)
    return file.getvalue()


AHEAD = b"\x80\x04r\xff\xff\xff\x7fN."
"""LONG_BINPUT: a memo of two thousand million places."""


def parameters(*values: Any) -> Persistent:
    return Persistent("A", "", {"_parameters": {str(i): v for i, v in enumerate(values)}})


def doubling(depth: int) -> Persistent:
    """Modules that each hold the next one twice."""
    module = parameters(torch.ones(1))
    for _ in range(depth):
        module = Persistent("A", "", {"_modules": {"a": module, "b": module}})
    return module


def hostile(tmp_path: Path) -> dict[str, Any]:
    target = str(tmp_path / "canary")
    write_it = f"open({target!r}, 'w').close()"
    good = {"_parameters": {"a": torch.ones(2)}}
    stored = legacy(4)
    many, nothing = [1] * 1000, dict.fromkeys(map(str, range(1000)))
    crowd = {str(i): Persistent("A", "", {"_parameters": nothing}) for i in range(100)}
    return {
        "posix.system": Call(os.system, f"touch {target}"),
        "builtins.eval": Call(eval, write_it),
        "builtins.exec": {"ema": Persistent("A", "", good | {"x": Call(exec, write_it)})},
        "builtins.getattr": Call(getattr, Call(__import__, "os"), "system"),
        "builtins.__import__": [Call(__import__, "os")],
        "io.open": Call(open, target, "w"),
        "torch.serialization.load": Call(torch.load, io.BytesIO(b"")),
        "pathlib": {"ema": Persistent("A", "", {"_parameters": {"a": Path(target)}})},
        "torch._utils._rebuild_device_tensor": Call(
            torch._utils._rebuild_device_tensor_from_numpy, 1, 2, 3, 4
        ),
        "functools.partial": Call(__import__("functools").partial, eval, write_it),
        "a tensor is given a state": parameters(Stretched()),
        "what it decodes is larger": parameters(
            *(Call(torch.storage._load_from_bytes, stored) for _ in range(20))
        ),
        "larger than the file": parameters(*(Call(set, many) for _ in range(20))),
        "stands in it twice": doubling(16),
        "more than 100000 modules": Persistent("A", "", {"_modules": crowd}),
        "no text of at most 500": Persistent("A", "", {"_parameters": {"a" * 501: None}}),
        "more than 2097152 instructions": [None] * 2**21,
        "takes memory ahead": parameters(Call(torch.storage._load_from_bytes, AHEAD)),
    }


@pytest.mark.parametrize("name", list(hostile(Path())))
def test_no_pickle_runs(name, persistence, tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps(hostile(tmp_path)[name]))
    with pytest.raises(ValueError, match=name.split(".")[0]):
        priors.load(path, settings="edm-cifar10-32x32-uncond-vp")
    assert not (tmp_path / "canary").exists()


def test_no_storage_runs(persistence, tmp_path):
    """The bytes of a storage are pickles too."""
    target = tmp_path / "canary"
    inner = io.BytesIO()
    torch.save(Call(os.system, f"touch {target}"), inner, _use_new_zipfile_serialization=False)
    bomb = Call(torch.storage._load_from_bytes, inner.getvalue())
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps(Persistent("A", "", {"_parameters": {"a": bomb}})))
    with pytest.raises(ValueError, match=r"posix\.system"):
        priors.load(path, settings="edm-cifar10-32x32-uncond-vp")
    assert not target.exists()


def rebuilt(*arguments: Any) -> Call:
    return Call(torch._utils._rebuild_tensor_v2, *arguments, False, OrderedDict())


@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda s: rebuilt(s, 0, (5,), (1,)), "reaches beyond"),
        (lambda s: rebuilt(s, 3, (2,), (1,)), "reaches beyond"),
        (lambda s: rebuilt(s, 0, (2, 1000000), (1, 0)), "reaches beyond"),
        (lambda s: rebuilt(s, -1, (2,), (1,)), "no sizes and strides"),
        (lambda s: rebuilt("s", 0, (2,), (1,)), "stands where a tensor must"),
        (lambda s: 3, "stands where a tensor must"),
        (lambda s: Call(torch.storage._load_from_bytes, b"\x80\x02N."), "corrupt"),
    ],
)
def test_tensors_within_their_storage(value, message, persistence, tmp_path):
    storage = torch.ones(4).storage()
    path = tmp_path / "network.pkl"
    network = Persistent("A", "", {"_parameters": {"a": value(storage)}})
    path.write_bytes(pickle.dumps(network))
    with pytest.raises(ValueError, match=message):
        edm_pickle.read_weights(path)


def test_damaged_pickles(persistence, tmp_path):
    settings = CASES["DDPM++ under EDM"]
    whole = pickle.dumps(published_pickle(settings, random_state(settings), persistence))
    path = tmp_path / "network.pkl"
    for data in (b"", b"\x80", whole[: len(whole) // 2], whole[:-1], b"\x80\x04N.", b"x" * 100):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="corrupt or no pickle"):
            edm_pickle.read_weights(path)
    g = torch.Generator().manual_seed(0)
    for _ in range(40):
        at = int(torch.randint(len(whole), (1,), generator=g))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        try:
            edm_pickle.read_weights(path)  # a changed weight is a weight
        except ValueError as error:
            assert "network.pkl" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "data",
    [
        AHEAD,
        b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.",  # BYTEARRAY8 of a tebibyte
        b"\x80\x02\x82\x01.",  # EXT1: the extension registry
        b"(S'ls'\nios\nsystem\n.",  # INST
    ],
)
def test_instructions_beyond_plain_data(data, tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="pickle"):
        edm_pickle.read_weights(path)


# --- refusals ---------------------------------------------------------------------------------

TINY = song(class_name="EDMPrecond")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (None, "does not say how its network is preconditioned"),
        ("edm-cifar10-32x32-uncond", "did you mean 'edm-cifar10-32x32-uncond-v"),
        ("edm-cifar10-32x32-uncond-vp", "img_resolution is 32, the tensors say 8"),
        ({"class_name": "Precond"}, "class_name 'Precond' is not supported"),
        (TINY | {"width": 3}, "unknown EDM settings"),
        (TINY | {"img_resolution": "8"}, "img_resolution must be of type int"),
        (TINY | {"channel_mult": [1, "2"]}, "channel_mult must be numbers"),
        (TINY | {"channel_mult": [2, 2]}, "channel_mult is"),
        (TINY | {"model_type": "DhariwalUNet"}, "model_type is DhariwalUNet"),
        (TINY | {"label_dim": 3}, "label_dim is 3, the tensors say 0"),
        (TINY | {"augment_dim": 9}, "augment_dim is 9"),
        (TINY | {"attn_resolutions": [8]}, "attn_resolutions is"),
        (TINY | {"embedding_type": "fourier"}, "embedding_type is fourier"),
        (TINY | {"encoder_type": "skip"}, "encoder_type is skip"),
        (TINY | {"resample_filter": [1, 3, 3, 1]}, "resample_filter is"),
        (TINY | {"class_name": "iDDPMPrecond"}, "twice as many channels"),
        (TINY | {"sigma_data": 0}, "sigma_data must be above 0"),
        (TINY | {"sigma_min": 90}, "must be 0 < low < high"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message, tmp_path):
    path = write(tmp_path, random_state(TINY))
    with pytest.raises(ValueError, match=message):
        priors.load(path, settings=settings)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("map_layer1.bias", None, "missing map_layer1.bias"),
        ("extra", torch.zeros(2), "unexpected extra"),
        ("map_layer1.bias", torch.zeros(2), "map_layer1.bias has shape"),
        ("map_layer1.bias", torch.full((32,), math.nan), "not finite"),
        ("map_augment.weight", torch.zeros(3, 9), r"map_augment.weight has shape \(3, 9\)"),
        ("dec.8x8_aux_conv.weight", None, "no tensor dec.8x8_aux_conv.weight"),
        ("u", torch.zeros(1001), "has a table u"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(name, value, message, tmp_path):
    state = random_state(TINY)
    state = {k: v for k, v in {**state, name: value}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        priors.load(write(tmp_path, state), settings={"class_name": "EDMPrecond"})


@pytest.mark.parametrize("label", [None, "null", 4])
def test_classes_are_checked(label, tmp_path):
    settings = CASES["DDPM++ under VP"]
    with pytest.raises(ValueError, match=r"0 \.\. 3"):
        priors.load(write(tmp_path, random_state(settings)), settings=settings, class_label=label)
