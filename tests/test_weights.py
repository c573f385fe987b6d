"""Weights from files of every kind: whole, in shards, damaged, hostile."""

import json
import os
import pickle
import struct
import subprocess
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from pipelines import WEIGHTS, edit, images, tiny, write
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import priors
from priors.pretrained.weights import fill, read_weights

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b.c": torch.ones(4, dtype=torch.float16),
    "n": torch.tensor(3),
}
CONTENT = {"model": TENSORS, "ema": {"shadow": [torch.zeros(5), torch.ones(2, 2)], "step": 7}}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def save(kind: str, path: Path, content: dict[str, Any]) -> Path:
    if kind == "safetensors":
        save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.mark.parametrize(
    ("kind", "content"),
    [("safetensors", TENSORS), ("zip", CONTENT), ("legacy", CONTENT)],
)
def test_content_comes_back_whatever_the_file_is_called(
    tmp_path: Path, kind: str, content: dict[str, Any]
) -> None:
    read = read_weights(save(kind, tmp_path / "weights.pt", content))
    assert same(dict(sorted(read.items())), dict(sorted(content.items())))


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_limits(tmp_path: Path, kind: str) -> None:
    path = save(kind, tmp_path / "weights.pt", {"a": torch.zeros(2**16)})
    read_weights(path, max_parameters=2**16)
    with pytest.raises(ValueError, match="more than max_parameters = 65535; raise"):
        read_weights(path, max_parameters=2**16 - 1)


# --- hostile files ----------------------------------------------------------------------------


class Asks:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.path}",))


class Calls:
    """A pickle of any call, by its name."""

    def __init__(self, call: Any, *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> Any:
        return (self.call, self.args)


def test_code_in_a_pickle_is_never_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps({"a": Asks(canary)}))
    asks: dict[str, Any] = {"a": Asks(canary), "b": torch.ones(2)}
    for path in (
        plain,
        save("zip", tmp_path / "zip.pt", asks),
        save("legacy", tmp_path / "old.ckpt", asks),
    ):
        with pytest.raises(ValueError, match="asks for code, which is never run"):
            read_weights(path)
        with pytest.raises(ValueError, match="asks for code, which is never run"):
            priors.load(path)
    with pytest.raises(ValueError, match=rf"never run \({os.system.__module__}\.system\)"):
        read_weights(tmp_path / "zip.pt")
    assert not canary.exists()
    subprocess.run(["touch", str(canary)], check=True)
    assert canary.exists()


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_damage_gives_an_error_or_tensors(tmp_path: Path, kind: str) -> None:
    content = {"a": torch.zeros(40), "b": torch.ones(3, 5)}
    path = save(kind, tmp_path / "weights.pt", content)
    data = path.read_bytes()
    random = torch.Generator().manual_seed(1)
    for attempt in range(200):
        where, what = torch.randint(0, 2**31, (2,), generator=random).tolist()
        bad = bytearray(data)
        if attempt % 4 == 0:
            bad = bad[: where % len(bad)]
        else:
            bad[where % len(bad)] ^= 1 << what % 8
        path.write_bytes(bad)
        try:
            read = read_weights(path, max_parameters=10**6)
        except ValueError as error:
            assert len(str(error)) < 1200  # noqa: PT017
            continue
        assert isinstance(read, dict)


def test_bombs_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    header = json.dumps(
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match="more than max_parameters"):
        read_weights(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 2**24)
    with pytest.raises(ValueError, match="a compressed archive"):
        read_weights(path)
    for bomb in (Calls(bytearray, 2**40), Calls(torch.FloatTensor, 2**40)):
        path.write_bytes(pickle.dumps({"a": bomb}, protocol=2))
        with pytest.raises(ValueError, match=r"weights\.pt"):
            read_weights(path)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"a": bomb}, protocol=2))
            archive.writestr("archive/version", b"3\n")
        with pytest.raises(ValueError, match=r"weights\.pt"):
            read_weights(path)


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(1).expand(2**40),
        torch.eye(3).to_sparse(),
        torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    ],
    ids=["spread", "sparse", "quantised"],
)
def test_tensors_that_are_not_plain(tmp_path: Path, value: Tensor) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": [value]}, path)
    with pytest.raises(ValueError, match="not a plain"):
        read_weights(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        read_weights(tmp_path / "missing.pt")
    os.mkfifo(tmp_path / "pipe.pt")
    for path in (tmp_path, tmp_path / "pipe.pt"):
        with pytest.raises(ValueError, match="not a regular file"):
            read_weights(path)
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list, expected a dictionary with names"):
        read_weights(tmp_path / "list.pt")


# --- filling a network ------------------------------------------------------------------------


def empty() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1, bias=False))


def test_fill_takes_what_fits_and_lists_what_does_not() -> None:
    state = {
        "0.weight": torch.ones(2, 3).half(),
        "0.bias": torch.ones(2),
        "1.weight": 2 * TENSORS["a"][:1, :2],
    }
    module = fill(empty(), state, source="here", dtype=torch.float64)
    assert {p.dtype for p in module.parameters()} == {torch.float64}
    torch.testing.assert_close(module(torch.ones(1, 3).double()), torch.tensor([[8.0]]).double())
    assert module[1].weight.data_ptr() != state["1.weight"].data_ptr()  # type: ignore[index]
    wrong = {"0.weight": torch.ones(3, 2), "extra": torch.ones(1), "0.bias": torch.ones(2)}
    with pytest.raises(
        ValueError,
        match=r"here does not fit the network: missing 1\.weight; unexpected extra; "
        r"0\.weight has shape \(3, 2\), expected \(2, 3\)",
    ):
        fill(empty(), wrong, source="here")
    for bad, message in ((torch.ones(2).int(), "torch.int32"), (torch.ones(2) / 0, "not finite")):
        with pytest.raises(ValueError, match=message):
            fill(empty(), {**state, "0.bias": bad}, source="here")


def test_fill_leaves_no_constant_without_memory() -> None:
    module = empty()
    module.register_buffer("table", torch.ones(2, device="meta"), persistent=False)
    state = {k: torch.ones(v.shape) for k, v in module.state_dict().items()}
    with pytest.raises(ValueError, match="constants that no weights file holds: table"):
        fill(module, state, source="here")


def test_a_checkpoint_of_no_known_format_lists_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(OrderedDict(first=torch.ones(2), inner={"weight": torch.ones(1)}), path)
    with pytest.raises(
        ValueError, match=r"mine\.pth is of no known format: .*first, inner\.weight.*from_network"
    ):
        priors.load(path)
    folder = write(tmp_path / "folder", tiny(), DDPMScheduler())
    with pytest.raises(ValueError, match="states its own settings"):
        priors.load(folder, settings={"a": 1})


# --- the weights of a folder ------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "ddpm", tiny(), DDPMScheduler())


def shard(folder: Path, suffix: str) -> Path:
    """The folder's weights in two shards under an index."""
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(state)
    where = {}
    for k, part in enumerate((names[::2], names[1::2]), 1):
        file = f"diffusion_pytorch_model-{k:05d}-of-00002{suffix}"
        content = {name: state[name] for name in part}
        kind = "zip" if suffix == ".bin" else "safetensors"
        save(kind, folder / "unet" / file, content)
        where |= dict.fromkeys(part, file)
    index = folder / "unet" / f"diffusion_pytorch_model{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    return index


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_bin_where_no_safetensors_is(folder: Path, kind: str) -> None:
    expected = priors.load(folder).denoise(images(1), 1.0)
    state = load_file(folder / WEIGHTS)
    save(kind, folder / "unet/diffusion_pytorch_model.bin", {k: v * 2 for k, v in state.items()})
    assert torch.equal(priors.load(folder).denoise(images(1), 1.0), expected)
    save(kind, folder / "unet/diffusion_pytorch_model.bin", state)
    (folder / WEIGHTS).unlink()
    assert torch.equal(priors.load(folder).denoise(images(1), 1.0), expected)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards(folder: Path, suffix: str) -> None:
    expected = priors.load(folder).denoise(images(1), 1.0)
    index = shard(folder, suffix)
    assert torch.equal(priors.load(folder).denoise(images(1), 1.0), expected)
    total = sum(p.numel() for p in tiny().parameters())
    priors.load(folder, max_parameters=total)
    with pytest.raises(ValueError, match="max_parameters"):
        priors.load(folder, max_parameters=total - 1 if suffix == ".safetensors" else 10)
    where = json.loads(index.read_text())["weight_map"]
    first = sorted(where)[0]
    edit(index, weight_map={k: v for k, v in where.items() if k != first})
    with pytest.raises(ValueError, match=f"disagree on 1 tensors: {first}"):
        priors.load(folder)
    outside = folder.parent / f"outside{suffix}"
    os.link(folder / "unet" / where[first], outside)
    for bad in (f"../../outside{suffix}", str(outside), "other.json", ["x"]):
        edit(index, weight_map={**where, first: bad})
        with pytest.raises(ValueError, match="is not the name of a"):
            priors.load(folder)
    edit(index, weight_map={**where, first: f"missing{suffix}"})
    with pytest.raises(FileNotFoundError, match="missing"):
        priors.load(folder)
    edit(index, weight_map=[])
    with pytest.raises(ValueError, match="has no weight_map"):
        priors.load(folder)
