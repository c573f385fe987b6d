"""Pictures, arrays and CT slices from files, and files that appear whole or not at all.

Nothing in a file is executed, and nothing is allocated before the header's sizes are checked.
Messages name the file and never a value from inside a DICOM file: no patient's name or number.
"""

from __future__ import annotations

import io
import logging
import math
import os
import stat
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from torch import Tensor

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
_PADDING_HU = -1000.0


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
        return _read_dicom(path, max_values)
    if kind == "NPZ":
        raise ValueError(f"{path}: is an archive of arrays; save the one array as .npy")
    return _read_picture(path, max_values, kind)


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
            if key is None or key not in names:
                reason = "holds several arrays" if key is None else f"holds no array {key!r}"
                raise ValueError(f"{path}: {reason}; name one of {', '.join(names)}")
            info = archive.getinfo(f"{key}.npy")
            with archive.open(info) as member:
                return _load_npy(path, member, info.file_size, max_values)
    except (zipfile.BadZipFile, EOFError, KeyError, OSError, NotImplementedError) as error:
        raise _corrupt(path, error) from error


def write_png(path: str | os.PathLike[str], array: Tensor | np.ndarray[Any, Any]) -> None:
    """Write (H, W), (1, H, W) or (3, H, W) as an 8-bit PNG that appears whole or not at all.

    Floats must lie in [0, 1] (clamp them first where they may not); uint8 is written as it is.
    """
    from PIL import Image as Picture

    values = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
    if values.ndim == 3 and values.shape[0] in (1, 3):
        values = values[0] if values.shape[0] == 1 else values.transpose(1, 2, 0)
    elif values.ndim != 2:
        raise ValueError(f"a picture is (H, W), (1, H, W) or (3, H, W), got {values.shape}")
    if values.dtype != np.uint8:
        if values.dtype.kind != "f":
            raise TypeError(f"a picture has dtype uint8 or floating point, got {values.dtype}")
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(
                f"values span [{values.min():g}, {values.max():g}], expected [0, 1]; rescale or "
                "clamp them first"
            )
        values = np.round(values * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Picture.fromarray(values).save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file under a temporary name in its folder, then rename it: never half a file."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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


def _corrupt(path: Path, error: Exception, detail: bool = True) -> ValueError:
    text = " ".join(str(error).split())[:120] if detail else ""
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return ValueError(f"{path}: is corrupt or truncated ({reason}); fetch or export it again")


def _check_size(path: Path, shape: tuple[int, ...], max_values: int) -> None:
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
        raise _corrupt(path, error) from None
    shape, fortran, dtype = header
    if dtype.hasobject:
        raise ValueError(f"{path}: holds pickled objects, which are never read; save plain numbers")
    if dtype.kind not in "fiubc":
        raise ValueError(f"{path}: holds {dtype}, not numbers; save a plain array")
    _check_size(path, shape, max_values)
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
        raise _corrupt(path, error) from None
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
        raise _corrupt(path, error, detail=False) from None
    except Picture.DecompressionBombError:
        raise ValueError(
            f"{path}: declares more than {max_values} values; use a part of it"
        ) from None
    except Exception as error:  # the decoders raise nearly anything on broken files
        raise _corrupt(path, error) from None
    _check_size(path, size, max_values)
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


@contextmanager
def _silent_pydicom() -> Iterator[None]:
    """pydicom's warnings quote values, which may be a patient's name."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _read_dicom(path: Path, max_values: int) -> Image:
    import pydicom
    from pydicom.pixels import apply_modality_lut

    try:
        with _silent_pydicom():
            header = pydicom.dcmread(path, stop_before_pixels=True)
            frames, samples = int(header.get("NumberOfFrames") or 1), header.get("SamplesPerPixel")
            shape = (int(header.get("Rows") or 0), int(header.get("Columns") or 0))
            modality, kind = header.get("Modality"), header.get("RescaleType") or "HU"
            rescaled = "RescaleSlope" in header and "RescaleIntercept" in header
            colour = samples != 1 or "MONOCHROME" not in str(
                header.get("PhotometricInterpretation")
            )
            spacing = header.get("PixelSpacing")
            spacing = None if not spacing else (float(spacing[0]), float(spacing[1]))
            padding = header.get("PixelPaddingValue")
    except Exception as error:
        raise _corrupt(path, error, detail=False) from None
    for wrong, reason in (
        (0 in shape, "holds no pixels; name an image file of the series"),
        (frames > 1, f"holds {frames} frames; save one slice alone"),
        (colour, "is a colour image; only monochrome CT slices are read"),
        (modality != "CT", "is no CT slice; only CT has Hounsfield units"),
        (not rescaled, "states no rescale, so its Hounsfield units are unknown; export it again"),
        (kind not in ("HU", "US"), "is rescaled to another unit than HU; export it in HU"),
        (
            spacing is not None and not all(0 < s < math.inf for s in spacing),
            "states an impossible pixel spacing; export it again",
        ),
    ):
        if wrong:
            raise ValueError(f"{path}: {reason}")
    _check_size(path, shape, max_values)
    try:
        with _silent_pydicom():
            dataset = pydicom.dcmread(path)
            missing = "PixelData" not in dataset
            stored = None if missing else dataset.pixel_array
            hu = None if stored is None else np.asarray(apply_modality_lut(stored, dataset))
    except Exception as error:
        raise _corrupt(path, error, detail=False) from None
    if stored is None or hu is None:
        raise ValueError(f"{path}: holds no pixels; name an image file of the series")
    data = torch.from_numpy(hu.astype(np.float32))
    if padding is not None:
        data[torch.from_numpy(stored == padding)] = _PADDING_HU
    return Image(data[None], "hounsfield", spacing)
