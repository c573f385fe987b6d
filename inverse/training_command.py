"""What the command train does: images from files, a prior trained on them, its held-out error."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import priors
from priors import training

from .commands import progress
from .io import SUFFIXES, read_array, read_image
from .measurement import centre

Span = tuple[float, float]


def train_prior(args: Namespace) -> None:
    """Train, save, and print the error on images kept out of the training."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    images, (low, high) = _read_images(args)
    to_network = 2 / (high - low)
    generator = torch.Generator().manual_seed(args.seed)
    order = torch.randperm(len(images), generator=generator).tolist()
    # A tenth is kept out to judge by, at most 64; a single image has to do both.
    count = min(len(images) // 10 or int(len(images) > 1), 64)
    held, chosen = order[:count] or order, order[count:]
    scaled = [(images[i] - low) * to_network - 1 for i in chosen]
    zoom = (args.zoom[0], args.zoom[1])
    views = training.Images(scaled, training.Augmentation(args.crop, zoom, args.flip, args.rotate))
    data_std = float(torch.cat([im.flatten() for im in scaled]).std())
    recipe = training.Recipe(
        args.steps, args.batch, args.lr, seed=args.seed, sigma_data=round(max(data_std, 0.05), 3)
    )
    torch.manual_seed(args.seed)
    network = training.unet(views.event_shape, args.widths, args.layers, args.patch)
    state = _claim_state(args, views, scaled)
    if (state / "state.safetensors").exists():
        print(f"going on from the state in {state}")
    with progress("training") as show:
        network = training.train(
            network, views, recipe, state, lambda step, _: show(step, args.steps)
        )
    unit = 1 / to_network
    inner: Any = network.network if args.patch > 1 else network
    priors.save(
        inner, args.out, event_shape=views.event_shape, data_range=(low, high),
        sigma_range=(recipe.sigma_range[0] * unit, recipe.sigma_range[1] * unit),
        sigma_data=recipe.sigma_data, patch=args.patch, any_size=True,
        stride=args.patch * 2 ** (len(args.widths) - 1),
    )  # fmt: skip
    _, height, width = views.event_shape
    judged = torch.stack([centre(images[i], height, width) for i in held])
    _print_errors(args.out, judged, unit, "held-out" if count else "training")
    shutil.rmtree(state, ignore_errors=True)
    print(f"the prior is in {args.out}; use it with --prior {args.out}")


def _claim_state(args: Namespace, views: training.Images, scaled: list[Tensor]) -> Path:
    """The folder of the run's state, unless it is of a run on other data or settings."""
    digest = hashlib.sha256()
    for image in scaled:
        digest.update(image.numpy().tobytes())
    settings = [args.widths, args.layers, args.patch, repr(views.augmentation), digest.hexdigest()]
    state: Path = args.out / ".state"
    state.mkdir(parents=True, exist_ok=True)
    note = state / "settings.json"
    if note.exists() and json.loads(note.read_text()) != settings:
        raise ValueError(
            f"{state}: holds a run on other data or settings; delete it to start again"
        )
    note.write_text(json.dumps(settings))
    return state


def _print_errors(folder: Path, judged: Tensor, unit: float, which: str) -> None:
    sigmas = [s * unit for s in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)]
    errors = training.heldout_error(priors.load(folder), judged, sigmas)
    print("noise level   error of the denoised image (root mean square, "
          f"{len(judged)} {which} images)")  # fmt: skip
    print("\n".join(f"{s:11.4g}   {e:.4g}" for s, e in zip(sigmas, errors, strict=True)))
    if not all(math.isfinite(e) for e in errors):
        raise FloatingPointError("the trained prior's errors are not finite; lower --lr")


def _read_images(args: Namespace) -> tuple[list[Tensor], Span]:
    """Images (C, H, W) in data units, and the range they span."""
    path: Path = args.data
    images, span = _from_folder(path) if path.is_dir() else _from_array(path, args.key)
    if args.data_range is not None:
        span = (args.data_range[0], args.data_range[1])
    if span is None:
        raise ValueError(f"{path}: holds floats of unknown range; state it with --data-range")
    if not span[0] < span[1]:
        raise ValueError(f"--data-range {span[0]:g} {span[1]:g}: must increase; swap them")
    least = min(float(image.min()) for image in images)
    most = max(float(image.max()) for image in images)
    if not (span[0] <= least and most <= span[1]):
        raise ValueError(
            f"{path}: spans [{least:g}, {most:g}], beyond [{span[0]:g}, {span[1]:g}]; widen "
            "--data-range"
        )
    return images, span


def _from_folder(path: Path) -> tuple[list[Tensor], Span | None]:
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"{path}: holds no images ({', '.join(SUFFIXES)}); name another folder")
    read = [read_image(p) for p in files]
    units = {image.units for image in read}
    if len(units) > 1:
        raise ValueError(f"{path}: mixes images in {', '.join(sorted(units))}; separate them")
    spans = {"intensity": (0.0, 1.0), "hounsfield": (-1024.0, 3072.0)}
    return [image.data for image in read], spans.get(units.pop())


def _from_array(path: Path, key: str | None) -> tuple[list[Tensor], Span | None]:
    array = read_array(path, 2**30, key)
    if array.ndim not in (3, 4) or array.dtype.kind not in "fu":
        raise ValueError(
            f"{path}: holds {array.dtype} of shape {array.shape}; expected floats or uint8 of "
            "shape (N, H, W) or (N, C, H, W)"
        )
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        raise ValueError(f"{path}: holds {array.dtype}; convert it to floats or uint8")
    whole = torch.from_numpy(array).float() / (255 if array.dtype.kind == "u" else 1)
    images = list(whole if whole.ndim == 4 else whole[:, None])
    return images, (0.0, 1.0) if array.dtype.kind == "u" else None
