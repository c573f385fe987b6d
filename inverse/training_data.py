"""The images that a training run names: pictures in a folder, or an array."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from priors.training.recipe import Data

from .io import SUFFIXES, read_array, read_image

Span = tuple[float, float]

_LIMIT = 2**30


@dataclass(frozen=True)
class Pictures:
    """Images (C, H, W) in data units, their names, and the range that they span where known."""

    images: list[Tensor]
    names: list[str]
    span: Span | None


def read_data(data: Data, seed: int) -> tuple[list[Tensor], list[Tensor], Span]:
    """Training images, held-out images (perhaps none), and the range of their values."""
    found = read_pictures(Path(data.path), data.key, data.range)
    span = data.range or found.span
    if span is None:
        raise ValueError(
            f"{data.path}: holds numbers of unknown range; state data.range=[low,high] "
            "(--data-range)"
        )
    _check_span(data.path, found.images, span)
    if data.held_out_path is None and data.held_out_key is None:
        return *_split(found, data, seed), span
    path, key = data.held_out_path or data.path, data.held_out_key or data.key
    other = read_pictures(Path(path), key, data.range)
    if data.range is None and other.span != span:
        raise ValueError(f"{path}: spans {other.span}, {data.path} {span}; state data.range")
    _check_span(path, other.images, span)
    return found.images, other.images, span


def _split(found: Pictures, data: Data, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    images, total = found.images, len(found.images)
    if isinstance(data.held_out, tuple):
        wanted = [str(name) for name in data.held_out]
        unknown = sorted(set(wanted) - set(found.names))
        if unknown:
            raise ValueError(
                f"{data.path}: holds no {', '.join(unknown[:4])} to hold out; it has "
                f"{', '.join(found.names[:4])} and {max(total - 4, 0)} more"
            )
        order = sorted(range(total), key=lambda i: found.names[i] not in wanted)
        count = sum(name in wanted for name in found.names)
    else:
        # A tenth, at most 64; a single image has to do both.
        usual = min(total // 10 or int(total > 1), 64)
        count = usual if data.held_out is None else data.held_out
        order = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).tolist()
    if count >= total:
        raise ValueError(f"{data.path}: {count} of its {total} images held out leave none to train")
    return [images[i] for i in order[count:]], [images[i] for i in order[:count]]


def _check_span(path: str, images: list[Tensor], span: Span) -> None:
    least = min(float(image.min()) for image in images)
    most = max(float(image.max()) for image in images)
    if not (span[0] <= least and most <= span[1]):
        raise ValueError(
            f"{path}: spans [{least:g}, {most:g}], beyond [{span[0]:g}, {span[1]:g}]; widen "
            "data.range (--data-range)"
        )


def read_pictures(path: Path, key: str | None = None, span: Span | None = None) -> Pictures:
    """The images of a folder, or of an array (N, H, W) or (N, C, H, W) in a file."""
    return _from_folder(path) if path.is_dir() else _from_array(path, key, span)


def _from_folder(path: Path) -> Pictures:
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"{path}: holds no images ({', '.join(SUFFIXES)}); name another folder")
    read = [read_image(p) for p in files]
    units = {image.units for image in read}
    if len(units) > 1:
        raise ValueError(f"{path}: mixes images in {', '.join(sorted(units))}; separate them")
    spans = {"intensity": (0.0, 1.0), "hounsfield": (-1024.0, 3072.0)}
    images = [image.data for image in read]
    return Pictures(images, [p.stem for p in files], spans.get(units.pop()))


def _from_array(path: Path, key: str | None, span: Span | None) -> Pictures:
    array = read_array(path, _LIMIT, key)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if array.ndim not in (3, 4) or kind not in "fiu":
        raise ValueError(
            f"{path}: holds {array.dtype} of shape {array.shape}; expected numbers of shape "
            "(N, H, W) or (N, C, H, W)"
        )
    bytes_ = kind == "u" and size == 1
    # 32-bit floats hold whole numbers of 16 bits, not of 64.
    if kind in "iu" and not bytes_ and (span is None or size > 2):
        raise ValueError(
            f"{path}: holds {array.dtype}; convert it to floats or uint8, or for 16 bits state "
            "data.range"
        )
    if array.dtype.byteorder == (">" if sys.byteorder == "little" else "<"):
        array = array.astype(array.dtype.newbyteorder("="))
    whole = torch.from_numpy(array.astype("float32"))
    if not bool(whole.isfinite().all()):
        raise ValueError(f"{path}: has values that are not finite; replace them")
    if bytes_:
        whole /= 255
    images = list(whole if whole.ndim == 4 else whole[:, None])
    return Pictures(images, [str(i) for i in range(len(images))], (0.0, 1.0) if bytes_ else None)
