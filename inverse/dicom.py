"""CT slices in Hounsfield units from DICOM files.

Messages name the file and never a value from inside it: no patient's name or number.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from .io import Image, check_size, corrupt

AIR = -1000.0
"""What pixels marked as padding, outside the scan, become."""


def read_slice(path: Path, max_values: int) -> Image:
    """One CT slice in Hounsfield units by its own rescale, as `read_image` describes it."""
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
        raise corrupt(path, error, detail=False) from None
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
    check_size(path, shape, max_values)
    try:
        with _silent_pydicom():
            dataset = pydicom.dcmread(path)
            missing = "PixelData" not in dataset
            stored = None if missing else dataset.pixel_array
            hu = None if stored is None else np.asarray(apply_modality_lut(stored, dataset))
    except Exception as error:
        raise corrupt(path, error, detail=False) from None
    if stored is None or hu is None:
        raise ValueError(f"{path}: holds no pixels; name an image file of the series")
    data = torch.from_numpy(hu.astype(np.float32))
    if padding is not None:
        data[torch.from_numpy(stored == padding)] = AIR
    return Image(data[None], "hounsfield", spacing)


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
