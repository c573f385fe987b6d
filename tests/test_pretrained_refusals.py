"""Loading folders that are wrong, damaged or hostile: every refusal."""

import json
import os
import re
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from pipelines import (
    SAVED,
    WEIGHTS,
    edit,
    images,
    tiny,
    write,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

import priors
from priors import pretrained
from priors.pretrained import loading

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "ddpm", tiny(), diffusers.DDPMScheduler())


def test_unknown_names_list_the_bundled_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "BUNDLED", folder.parent)
    assert pretrained.bundled_names() == ["ddpm"]
    assert priors.load("ddpm").event_shape == (3, 8, 8)
    with pytest.raises(
        ValueError, match=r"unknown prior 'dpm'; did you mean 'ddpm'\? Bundled: ddpm"
    ):
        priors.load("dpm")
    with pytest.raises(FileNotFoundError, match="no folder or file nowhere/at/all"):
        priors.load("nowhere/at/all")
    with pytest.raises(FileNotFoundError, match="no folder or file"):
        priors.load(Path("nowhere"))
    with pytest.raises(TypeError, match="a name or a path"):
        priors.load(3)  # type: ignore[arg-type]


def test_a_pickle_that_asks_for_code_is_never_run(folder: Path) -> None:
    canary = folder / "canary"
    payload = b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."
    pickled = folder / "unet" / "diffusion_pytorch_model.bin"
    pickled.write_bytes(payload)
    priors.load(folder)  # the safetensors beside it serve
    (folder / WEIGHTS).unlink()
    with pytest.raises(ValueError, match="asks for code, which is never run"):
        priors.load(folder)
    for suffix in (".pt", ".pth", ".ckpt"):
        checkpoint = folder / f"model{suffix}"
        checkpoint.write_bytes(payload)
        with pytest.raises(ValueError, match="asks for code, which is never run"):
            priors.load(checkpoint)
    pickled.rename(folder / WEIGHTS)
    with pytest.raises(ValueError, match="is corrupt"):
        priors.load(folder)
    assert not canary.exists()


def test_tensors_must_fit_the_network(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    name = "conv_in.weight"

    def becomes(changed: dict[str, Tensor], message: str) -> None:
        save_file(changed, folder / WEIGHTS)
        with pytest.raises(ValueError, match=message):
            priors.load(folder)

    becomes({k: v for k, v in state.items() if k != name}, "missing conv_in.weight")
    becomes({**state, "extra": torch.zeros(1)}, "unexpected extra")
    becomes({**state, name: torch.zeros(8, 3, 1, 1)}, r"conv_in.weight has shape \(8, 3, 1, 1\)")
    becomes({**state, name: state[name].int()}, "type torch.int32")
    becomes({**state, name: state[name] / 0}, "conv_in.weight holds values that are not finite")


def test_truncated_garbage_and_too_large_files(folder: Path) -> None:
    path = folder / WEIGHTS
    data = path.read_bytes()
    for bad in (data[:-1], data[: len(data) // 2], data[:12], data[:4], b"", data + b"\0"):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="corrupt"):
            priors.load(folder)
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(ValueError, match="corrupt"):
        priors.load(folder)
    path.write_bytes(struct.pack("<Q", 10**5) + b"[" * 10**5)
    with pytest.raises(ValueError, match="corrupt"):
        priors.load(folder)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="more than max_parameters = 1000; raise max_parameters"):
        priors.load(folder, max_parameters=1000)
    bomb = {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    header = json.dumps(bomb).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match="more than max_parameters"):
        priors.load(folder)


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path: Path) -> None:
    priors.save(tiny(), tmp_path, **SAVED)
    data = bytearray((tmp_path / WEIGHTS).read_bytes())
    data[-5] ^= 1
    (tmp_path / WEIGHTS).write_bytes(data)
    with pytest.raises(ValueError, match=r"expects SHA-256 [0-9a-f]{64}, found [0-9a-f]{64}"):
        priors.load(tmp_path)


@pytest.mark.parametrize(
    "part", [WEIGHTS, "unet/config.json", "scheduler/scheduler_config.json", "model_index.json"]
)
def test_files_missing_linked_out_or_not_files(folder: Path, part: str) -> None:
    path, outside = folder / part, folder.parent / "outside"
    path.rename(outside)
    with pytest.raises(FileNotFoundError, match=re.escape(part)):
        priors.load(folder)
    path.symlink_to(outside)
    with pytest.raises(ValueError, match="leaves the folder"):
        priors.load(folder)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="not a regular file"):
        priors.load(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="not a regular file"):
        priors.load(folder)
    path.rmdir()
    path.symlink_to(path)
    with pytest.raises(ValueError, match="cannot be read"):
        priors.load(folder)


def test_a_linked_subfolder_and_an_inner_link(folder: Path) -> None:
    (folder / "unet").rename(folder / "kept")
    (folder / "unet").symlink_to("kept")
    assert priors.load(folder).event_shape == (3, 8, 8)
    (folder / "kept").rename(folder.parent / "kept")
    (folder / "unet").unlink()
    (folder / "unet").symlink_to("../kept")
    with pytest.raises(ValueError, match="leaves the folder"):
        priors.load(folder)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("model_index.json", {"unet": ["diffusers", "UNet2DConditionModel"]}, "only UNet2DModel"),
        ("model_index.json", {"unet": ["my_code", "UNet2DModel"]}, "not a part of diffusers"),
        ("model_index.json", {"scheduler": ["diffusers", "LCMScheduler"]}, "'LCMScheduler' is not"),
        ("model_index.json", {"scheduler": ["diffusers", ["x"]]}, "is not supported"),
        ("model_index.json", {"image_encoder": ["diffusers", "X"]}, "beside unet"),
        ("model_index.json", {"unet": [None, None]}, "must name a unet and a scheduler"),
        ("model_index.json", {"auto_map": {}}, "code of its own"),
        ("unet/config.json", {"_class_name": "UNet1DModel"}, "'UNet1DModel'; only UNet2DModel"),
        ("unet/config.json", {"auto_map": {"AutoModel": "x.Y"}}, "code of its own"),
        ("unet/config.json", {"surprise": 1}, "does not know: \\['surprise'\\]"),
        ("unet/config.json", {"layers_per_block": 10**9}, "at most 64 layers_per_block"),
        ("unet/config.json", {"layers_per_block": "2"}, "must be like 2, got '2'"),
        ("unet/config.json", {"norm_num_groups": 5}, "does not describe a UNet2DModel"),
        ("unet/config.json", {"block_out_channels": [10**30, 16]}, "does not describe"),
        ("unet/config.json", {"block_out_channels": [2**20, 2**20]}, "does not fit the network"),
        ("unet/config.json", {"down_block_types": ["os.system", "x"]}, "does not describe"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type 'timestep'"),
        ("unet/config.json", {"time_embedding_type": "fourier"}, "ScoreSdeVeScheduler only"),
        ("unet/config.json", {"sample_size": "8"}, "event_shape must be"),
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": "magic"},
            "prediction_type 'magic'",
        ),
        ("scheduler/scheduler_config.json", {"_class_name": "EDMEulerScheduler"}, "noise differs"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "cubic"}, "beta_schedule 'cubic'"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}, "num_train_timesteps"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": "1000"}, "num_train_timesteps"),
        ("scheduler/scheduler_config.json", {"beta_start": -0.1}, "beta_start must be a number"),
        ("scheduler/scheduler_config.json", {"beta_start": 0.0}, "betas must lie in"),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1, "x"]}, "trained_betas must"),
        ("scheduler/scheduler_config.json", {"trained_betas": [1.0, 1.0]}, "levels must increase"),
    ],
)
def test_settings_refused(folder: Path, part: str, changes: dict[str, Any], message: str) -> None:
    edit(folder / part, **changes)
    with pytest.raises(ValueError, match=message):
        priors.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2; this version reads 1"),
        ({"colour": 1}, "unknown keys \\['colour'\\]"),
        ({"patch": True}, "patch must be of type int"),
        ({"stride": 0}, "stride must be from 1"),
        ({"data_range": [1, 0]}, "data_range must be"),
        ({"data_range": ["a", 1]}, "data_range must be"),
        ({"sigma_range": [0, 1, 2]}, "sigma_range must be"),
        ({"event_shape": [3, 9, 9]}, "event_shape must be"),
        ({"any_size": True, "stride": 3}, "stride must be a multiple of 2"),
    ],
)
def test_side_file_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    (folder / "prior.json").write_text(json.dumps({"format": 1, **changes}))
    with pytest.raises(ValueError, match=message):
        priors.load(folder)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "NaN", '{"format": 1, "format": 1}', '{"a": Infinity}', "[" * 9999, "\xff"],
)
def test_json_refused(folder: Path, text: str) -> None:
    (folder / "prior.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"prior\.json"):
        priors.load(folder)
    (folder / "prior.json").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ValueError, match="larger than"):
        priors.load(folder)


def test_random_damage_gives_a_typed_error_or_a_valid_prior(tmp_path: Path) -> None:
    priors.save(tiny(), tmp_path, **SAVED)
    random = torch.Generator().manual_seed(0)
    for part in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        path = tmp_path / part
        data = path.read_bytes()
        for _ in range(40):
            bad = bytearray(data)
            where, what = torch.randint(0, 2**31, (2,), generator=random).tolist()
            bad[where % len(bad)] = what % 256
            path.write_bytes(bad)
            try:
                priors.load(tmp_path)
            except (ValueError, FileNotFoundError) as error:
                assert len(str(error)) < 1200  # noqa: PT017
        path.write_bytes(data)


def test_devices(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no device nonsense; present: cpu"):
        priors.load(folder, device="nonsense")
    with pytest.raises(ValueError, match=r"x is on meta, the network on cpu"):
        priors.load(folder).network(images(1).to("meta"), torch.ones(1))


def test_importing_does_not_import_diffusers() -> None:
    code = "import sys, priors.pretrained; sys.exit('diffusers' in sys.modules)"
    root = Path(pretrained.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_nothing_is_asked_of_the_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert priors.load(folder).event_shape == (3, 8, 8)
