"""Hub ids: the cache as huggingface_hub lays it out, and downloads that are asked for."""

import importlib
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from diffusers import DDPMScheduler
from huggingface_hub.errors import HfHubHTTPError
from pipelines import images, tiny, write

import priors
from priors.pretrained import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "someone/ddpm-tiny"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    place = tmp_path / "cache"
    place.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(place))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return place


def lay_out(cache: Path, folder: Path, revision: str = "main") -> Path:
    """A folder as huggingface_hub caches it: blobs, a snapshot of links, and a reference."""
    root = cache / ("models--" + NAME.replace("/", "--"))
    snapshot = root / "snapshots" / COMMIT
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / revision).write_text(COMMIT)
    for number, file in enumerate(p for p in sorted(folder.rglob("*")) if p.is_file()):
        blob = root / "blobs" / f"{number:040d}"
        shutil.copy(file, blob)
        link = snapshot / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (len(file.relative_to(folder).parts) + 1)
        link.symlink_to(f"{up}blobs/{blob.name}")
    return snapshot


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "ddpm", tiny(), DDPMScheduler())


def test_what_is_cached_is_loaded_without_a_connection(cache: Path, folder: Path) -> None:
    expected = priors.load(folder).denoise(images(1), 1.0)
    snapshot = lay_out(cache, folder)
    for revision in ("main", COMMIT):
        prior = priors.load(NAME, revision=revision)
        assert torch.equal(prior.denoise(images(1), 1.0), expected)
    assert torch.equal(priors.load(snapshot).denoise(images(1), 1.0), expected)
    with pytest.raises(FileNotFoundError, match="v2 is not whole in the hub's cache, and HF_HUB"):
        priors.load(NAME, revision="v2")


def test_a_snapshot_links_to_its_own_blobs_only(cache: Path, folder: Path) -> None:
    snapshot = lay_out(cache, folder)
    link = snapshot / "unet/config.json"
    for place in (cache / "config.json", cache / "models--other--one/blobs/1"):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "unet/config.json", place)
        link.unlink()
        link.symlink_to(place)
        with pytest.raises(ValueError, match="leaves the folder"):
            priors.load(NAME)


def test_a_folder_of_that_name_goes_first(cache: Path, folder: Path, tmp_path: Path) -> None:
    lay_out(cache, folder)
    local = write(tmp_path / NAME, tiny(seed=1), DDPMScheduler())
    expected = priors.load(local.resolve()).denoise(images(1), 1.0)
    assert torch.equal(priors.load(NAME).denoise(images(1), 1.0), expected)


def test_offline(cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE forbids to download it"):
        priors.load(NAME)


def transport_errors() -> list[type[Exception]]:
    """What the client's transport raises where there is no route, and an error known to nobody."""
    module: Any = importlib.import_module(
        next(kind.__module__ for kind in HfHubHTTPError.__bases__ if kind is not OSError)
    )
    connect = getattr(module, "ConnectError", None) or module.ConnectionError
    return [connect, ConnectionError, type("Unknown", (Exception,), {})]


@pytest.mark.parametrize("kind", transport_errors())
@pytest.mark.parametrize("step", ["model_info", "snapshot_download"])
def test_unreachable(
    kind: type[Exception], step: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = huggingface_hub.snapshot_download

    def unreachable(*args: Any, **options: Any) -> Any:
        if options.get("local_files_only"):
            return local(*args, **options)
        raise kind("Name or service not known")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    if step == "model_info":
        monkeypatch.setattr(huggingface_hub.HfApi, step, unreachable)
    else:
        monkeypatch.setattr(hub, "_listing", lambda name, revision: {})
        monkeypatch.setattr(huggingface_hub, step, unreachable)
    message = rf"the hub cannot be reached .*\({kind.__name__}: Name or service not known\)"
    with pytest.raises(FileNotFoundError, match=message):
        priors.load(NAME)


def test_only_json_and_weights_are_downloaded(
    cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    local = huggingface_hub.snapshot_download
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"x")
    (folder / "code.py").write_text("raise SystemExit")

    def listing(name: str, revision: str) -> dict[str, int]:
        return {
            str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()
        }

    def download(name: str, **options: Any) -> str:
        if options.get("local_files_only"):
            return local(name, **options)
        asked.append({"name": name, **options})
        return str(lay_out(cache, folder))

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_listing", listing)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(ValueError, match="more than max_parameters = -16777216"):
        priors.load(NAME, max_parameters=-(2**24))
    assert not asked
    assert priors.load(NAME).event_shape == (3, 8, 8)
    assert asked == [
        {
            "name": NAME,
            "revision": "main",
            "allow_patterns": [
                "model_index.json",
                "scheduler/scheduler_config.json",
                "unet/config.json",
                "unet/diffusion_pytorch_model.safetensors",
            ],
        }
    ]
    assert priors.load(NAME).event_shape == (3, 8, 8)
    assert len(asked) == 1


@pytest.mark.parametrize(
    "part",
    [
        "model_index.json",
        "unet",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
    ],
)
@pytest.mark.parametrize("cut", [True, False], ids=["link", "content"])
def test_a_part_that_is_not_cached_is_downloaded(
    part: str, cut: bool, cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing are the file, or what its link leads to."""
    snapshot = lay_out(cache, folder)
    missing = sorted((snapshot / part).rglob("*")) or [snapshot / part]
    for link in missing:
        link.unlink() if cut else link.resolve().unlink()
    if (snapshot / part).is_dir() and cut:
        (snapshot / part).rmdir()
    local = huggingface_hub.snapshot_download

    def download(name: str, **options: Any) -> str:
        return local(name, **options) if options.get("local_files_only") else str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(FileNotFoundError, match="is not whole in the hub's cache"):
        priors.load(NAME)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_listing", lambda name, revision: {})
    assert priors.load(NAME).event_shape == (3, 8, 8)


def test_which_files_are_wanted() -> None:
    names = {
        "model_index.json": True,
        "README.md": False,
        "unet/config.json": True,
        "unet/modeling.py": False,
        "unet/diffusion_pytorch_model.fp16.safetensors": False,
        "unet/diffusion_pytorch_model.safetensors.index.json": True,
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors": True,
        "unet/diffusion_pytorch_model.bin": False,
        "vae/config.json": True,
        "vae/diffusion_pytorch_model.bin": True,
        "vae/../../x/config.json": False,
        "../config.json": False,
        "unet/diffusion_pytorch_model.msgpack": False,
        "scheduler/scheduler_config.json": True,
        "tokenizer/vocab.json": False,
    }
    assert set(hub.wanted(dict.fromkeys(names, 1))) == {name for name, yes in names.items() if yes}


@pytest.mark.parametrize(
    ("text", "yes"),
    [("a/b", True), ("google/ddpm-cat-256", True), ("a", False), ("a/b/c", False), ("../b", False),
     ("a/..", False), ("/a", False), ("a/b\n", False), ("a/", False)],
)  # fmt: skip
def test_what_reads_as_a_hub_id(text: str, yes: bool) -> None:
    assert hub.is_id(text) is yes
