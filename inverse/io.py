"""Pictures, arrays and CT slices from files.

Nothing in a file is executed, and nothing is allocated before the header's sizes are checked.
"""

from __future__ import annotations

import math
import os
import stat
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from torch import Tensor

from .result import write_bytes as write_bytes

Units = Literal["intensity", "hounsfield", "raw"]

MAX_VALUES = 2**26
"""How many values a file may declare, unless the caller says otherwise."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".dcm")
"""What `read_image` reads, by the usual names; a file's own first bytes decide."""

_KINDS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"\x93NUMPY": "NPY",
    b"PK\x03\x04": "NPZ",
}


@dataclass(frozen=True)
class Image:
    """One image from a file.

    Attributes:
        data: (C, H, W) float32.
        units: "intensity" in [0, 1]; "hounsfield"; or "raw", floats as the file has them.
        spacing: distance of neighbouring (rows, columns) in mm, where the file states it.
    """

    data: Tensor
    units: Units
    spacing: tuple[float, float] | None = None


def read_image(path: str | os.PathLike[str], max_values: int = MAX_VALUES) -> Image:
    """Read a PNG, JPEG, TIFF, NPY or DICOM file, whatever its name says.

    8-bit pictures are divided by 255 and 16-bit ones by 65535; grey gives 1 channel, RGB and
    palettes 3, and a camera's orientation tag is applied. NPY holds (H, W) or (C, H, W), floats
    kept as they are or uint8 divided by 255. DICOM holds one CT slice, which its own rescale turns
    into Hounsfield units; pixels marked as padding, outside the scan, become air (-1000 HU).

    Args:
        path: the file.
        max_values: refuse files that declare more values, before memory is taken.
    Raises:
        FileNotFoundError: no such file.
        ValueError: not a regular file, too large, corrupt, or of a kind that has no single
            meaning here (alpha, several frames, integers of unknown scale); the message is one
            line "FILE: reason; what to do".
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "NPY":
        return _image_from_array(path, read_array(path, max_values))
    if kind == "DICOM":
        from .dicom import read_slice

        return read_slice(path, max_values)
    if kind == "NPZ":
        raise ValueError(f"{path}: is an archive of arrays; save the one array as .npy")
    return _read_picture(path, max_values, kind)


class UnknownArrayError(ValueError):
    """An NPZ archive holds no array `key`."""

    def __init__(self, path: Path, key: str, names: list[str]) -> None:
        super().__init__(f"{path}: holds no array {key!r}; name one of {', '.join(names)}")
        self.key = key


def read_array(
    path: str | os.PathLike[str], max_values: int = MAX_VALUES, key: str | None = None
) -> np.ndarray[Any, Any]:
    """The array of an NPY file, or the array `key` of an NPZ archive, as stored; never a pickle.

    Raises FileNotFoundError and ValueError as `read_image` does.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "NPY":
        if key is not None:
            raise ValueError(f"{path}: is one array, without names; leave out the key {key!r}")
        with open(path, "rb") as file:
            return _load_npy(path, file, os.fstat(file.fileno()).st_size, max_values)
    if kind != "NPZ":
        raise ValueError(f"{path}: is a {kind} file, expected an array; save it as .npy")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [i.filename.removesuffix(".npy") for i in archive.infolist()]
            if key is None:
                raise ValueError(f"{path}: holds several arrays; name one of {', '.join(names)}")
            if key not in names:
                raise UnknownArrayError(path, key, names)
            info = archive.getinfo(f"{key}.npy")
            with archive.open(info) as member:
                return _load_npy(path, member, info.file_size, max_values)
    except (zipfile.BadZipFile, EOFError, KeyError, OSError, NotImplementedError) as error:
        raise corrupt(path, error) from error


def check_file(path: Path) -> None:
    """Refuse anything but a regular file, before it is opened: opening a FIFO may never end."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; check the name") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{path!s:.200}: cannot be read ({reason}); check the name") from None
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path}: is a folder; name a file inside it")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path}: is a pipe or device; name a regular file")


def _kind(path: Path) -> str:
    """The format by the first bytes."""
    check_file(path)
    try:
        with open(path, "rb") as file:
            head = file.read(132)
    except PermissionError:
        raise ValueError(f"{path}: may not be read; change its permissions") from None
    if head[128:132] == b"DICM":  # first: its free 128 bytes before may look like a TIFF
        return "DICOM"
    for magic, kind in _KINDS.items():
        if head.startswith(magic):
            return kind
    reason = "is empty" if not head else "is of no known format"
    raise ValueError(f"{path}: {reason}; expected PNG, JPEG, TIFF, NPY or DICOM")


def corrupt(path: Path, error: Exception, detail: bool = True) -> ValueError:
    """The refusal of a file that a decoder failed on; `detail` quotes what the decoder said."""
    text = " ".join(str(error).split())[:120] if detail else ""
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return ValueError(f"{path}: is corrupt or truncated ({reason}); fetch or export it again")


def check_size(path: Path, shape: tuple[int, ...], max_values: int) -> None:
    """Refuse a declared shape that is too large or empty, before memory is taken."""
    if math.prod(shape) > max_values:
        size = " x ".join(map(str, shape))
        raise ValueError(
            f"{path}: declares {size} values, more than {max_values}; use a part of it"
        )
    if 0 in shape:
        raise ValueError(f"{path}: is empty, of shape {shape}; it must hold values")


def _load_npy(path: Path, file: IO[bytes], size: int, max_values: int) -> np.ndarray[Any, Any]:
    try:
        version = np.lib.format.read_magic(file)  # type: ignore[arg-type]
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(file)  # type: ignore[arg-type]
        elif version == (2, 0):
            header = np.lib.format.read_array_header_2_0(file)  # type: ignore[arg-type]
        else:
            raise ValueError(f"format version {version}")
    except Exception as error:
        raise corrupt(path, error) from None
    shape, fortran, dtype = header
    if dtype.hasobject:
        raise ValueError(f"{path}: holds pickled objects, which are never read; save plain numbers")
    if dtype.kind not in "fiubc":
        raise ValueError(f"{path}: holds {dtype}, not numbers; save a plain array")
    check_size(path, shape, max_values)
    count = math.prod(shape)
    expected, found = count * dtype.itemsize, size - file.tell()
    if expected != found:
        raise ValueError(
            f"{path}: is corrupt or truncated (its header declares {expected} bytes, {found} "
            "follow); save it again"
        )
    try:
        content = file.read(expected)
    except Exception as error:  # a broken member of an archive
        raise corrupt(path, error) from None
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C").copy()


def _image_from_array(path: Path, array: np.ndarray[Any, Any]) -> Image:
    if array.ndim == 3 and array.shape[2] in (1, 3) and array.shape[0] > 4:
        raise ValueError(f"{path}: has shape {array.shape}; channels go first: (C, H, W)")
    if array.ndim not in (2, 3):
        raise ValueError(f"{path}: has shape {array.shape}; expected (H, W) or (C, H, W)")
    array = array if array.ndim == 3 else array[None]
    if array.dtype == np.uint8:
        return Image(torch.from_numpy(array.astype(np.float32) / 255), "intensity")
    if array.dtype.kind != "f":
        raise ValueError(
            f"{path}: holds {array.dtype}, whose scale is unknown; convert it to floating point "
            "in the prior's units"
        )
    with np.errstate(over="ignore"):
        data = torch.from_numpy(array.astype(np.float32))
    bad = ~torch.isfinite(data)
    if bool(bad.any()):
        first = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"{path}: has {int(bad.sum())} values that are not finite, the first at {first}; "
            "replace them, or hide them behind a mask"
        )
    return Image(data, "raw")


def _read_picture(path: Path, max_values: int, kind: str) -> Image:
    from PIL import Image as Picture
    from PIL import ImageOps, UnidentifiedImageError

    refuse: str | None = None
    try:
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("ignore")
            picture: Any = Picture.open(file, formats=[kind])
            size = (*picture.size[::-1], len(picture.getbands()))
            if math.prod(size) <= max_values:
                refuse = _picture_refusal(picture, path, kind)
                if refuse is None:
                    picture.load()
                    picture = ImageOps.exif_transpose(picture)
                    if picture.mode in ("P", "1"):
                        picture = picture.convert("RGB" if picture.mode == "P" else "L")
                    values = np.asarray(picture)
    except UnidentifiedImageError as error:
        raise corrupt(path, error, detail=False) from None
    except Picture.DecompressionBombError:
        raise ValueError(
            f"{path}: declares more than {max_values} values; use a part of it"
        ) from None
    except Exception as error:  # the decoders raise nearly anything on broken files
        raise corrupt(path, error) from None
    check_size(path, size, max_values)
    if refuse is not None:
        raise ValueError(f"{path}: {refuse}")
    if picture.mode == "F":
        return _image_from_array(path, values)
    scale = 255 if picture.mode in ("L", "RGB") else 65535
    data = torch.from_numpy(values.astype(np.float32) / scale)
    return Image(data[None] if data.ndim == 2 else data.permute(2, 0, 1).contiguous(), "intensity")


def _picture_refusal(picture: Any, path: Path, kind: str) -> str | None:
    mode = picture.mode
    if getattr(picture, "n_frames", 1) > 1:
        return f"holds {picture.n_frames} pictures; save one of them alone"
    if mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in picture.info:
        return "has an alpha channel; flatten it onto a background first"
    if mode not in ("1", "L", "P", "RGB", "F", "I;16", "I;16B", "I;16L"):
        return f"has the colour mode {mode}; convert it to grey or RGB"
    deep = False
    if kind == "PNG":
        with open(path, "rb") as file:
            deep = file.read(25)[24] == 16
    elif kind == "TIFF":
        deep = max(picture.tag_v2.get(258, (8,))) > 8
    if deep and mode == "RGB":
        return "has 16 bits per colour, of which 8 would be lost; save it as a float .npy"
    return None
