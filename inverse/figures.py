"""Picture panels: one row per job, from truth and measurement to posterior samples."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from .io import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["image", "std", "sinogram"]

CELL = 1.75
"""Width and height of a picture, in inches."""

DPI = 150


@dataclass(frozen=True)
class Column:
    """One picture of a row.

    Attributes:
        title: what it is.
        image: (C, H, W) or (H, W); 1 channel is shown grey, 3 in colour.
        note: a second line, such as its PSNR.
        kind: "std" has its own colours and a bar; "sinogram" is stretched to a square, its own
            range from black to white.
    """

    title: str
    image: Tensor
    note: str = ""
    kind: Kind = "image"


@dataclass(frozen=True)
class Row:
    """One job: a label and its pictures, all shown in the same window (low, high) of values."""

    label: str
    columns: tuple[Column, ...]
    window: tuple[float, float] = (0.0, 1.0)
    unit: str = ""


def panel(
    path: str | os.PathLike[str],
    columns: Sequence[Column | tuple[str, Tensor]],
    *,
    window: tuple[float, float] = (0.0, 1.0),
    label: str = "",
    unit: str = "",
) -> None:
    """Write one row of pictures as a PNG.

    Args:
        path: the file; it appears whole or not at all.
        columns: Columns, or pairs (title, image).
        window: the values shown as black and white; for CT in Hounsfield units.
        label: the row's name, at its left.
        unit: of the values, for the colour bar.
    """
    whole = tuple(c if isinstance(c, Column) else Column(*c) for c in columns)
    banner(path, [Row(label, whole, window, unit)])


def banner(path: str | os.PathLike[str], rows: Sequence[Row]) -> None:
    """Write several jobs as the rows of one PNG."""
    if not rows or any(not row.columns for row in rows):
        raise ValueError("a picture needs at least one row, and every row a column")
    write_bytes(path, _png(_figure(rows)))


def _figure(rows: Sequence[Row]) -> Figure:
    from matplotlib.figure import Figure

    most = max(len(row.columns) for row in rows)
    labelled = any(row.label for row in rows)
    left, right, gap, head = (0.34 if labelled else 0.06), 0.06, 0.07, 0.44
    bar = 0.42 if any(c.kind == "std" for row in rows for c in row.columns) else 0.0
    width = left + most * (CELL + gap) - gap + bar + right
    height = len(rows) * (head + CELL) + 0.06
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    for number, row in enumerate(rows):
        bottom = height - (number + 1) * (head + CELL)
        x = left
        if row.label:
            figure.text(
                0.17 / width, (bottom + CELL / 2) / height, row.label, rotation=90,
                ha="center", va="center", fontsize=10.5, fontweight="bold", color="#222222",
            )  # fmt: skip
        for column in row.columns:
            axes = figure.add_axes((x / width, bottom / height, CELL / width, CELL / height))
            shown = _draw(axes, column, row)
            middle = (x + CELL / 2) / width
            figure.text(
                middle, (bottom + CELL + 0.225) / height, column.title,
                ha="center", va="baseline", fontsize=9.5, color="#111111",
            )  # fmt: skip
            figure.text(
                middle, (bottom + CELL + 0.07) / height, column.note,
                ha="center", va="baseline", fontsize=8, color="#666666",
            )  # fmt: skip
            x += CELL + gap
            if column.kind == "std":
                place = ((x - gap + 0.04) / width, bottom / height, 0.07 / width, CELL / height)
                colours = figure.colorbar(shown, cax=figure.add_axes(place))
                colours.ax.tick_params(labelsize=6.5, length=2, pad=1.5, colors="#444444")
                colours.outline.set_visible(False)  # type: ignore[operator]
                colours.locator = _ticks()
                colours.update_ticks()
                x += bar
    return figure


def _ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=4)


def _draw(axes: Axes, column: Column, row: Row) -> Any:
    """Draw one picture and return it for its colour bar."""
    values = _values(column.image)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if column.kind == "std":
        grey = values if values.ndim == 2 else np.sqrt(np.square(values).mean(-1))
        # One bright pixel must not darken the rest.
        top = max(float(np.quantile(grey, 0.995)), 1e-12)
        return axes.imshow(grey, cmap="magma", vmin=0.0, vmax=top, interpolation="nearest")
    if column.kind == "sinogram":
        low, high = (float(q) for q in np.quantile(values, (0.001, 0.999)))
        return axes.imshow(
            values, cmap="gray", vmin=low, vmax=max(high, low + 1e-12), aspect="auto",
            interpolation="nearest",
        )  # fmt: skip
    low, high = row.window
    shown = np.clip((values - low) / (high - low), 0.0, 1.0)
    return axes.imshow(shown, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")


def _values(image: Tensor) -> np.ndarray[Any, Any]:
    """(H, W) or (H, W, 3) from (H, W), (1, H, W) or (3, H, W)."""
    values = image.detach().cpu().to(torch.float32)
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    elif values.ndim == 3 and values.shape[0] == 3:
        values = values.permute(1, 2, 0)
    elif values.ndim != 2:
        raise ValueError(
            f"a picture has shape (H, W), (1, H, W) or (3, H, W), got {tuple(image.shape)}"
        )
    return np.ascontiguousarray(values.numpy())


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    # No date and no version inside: the same pictures give the same bytes.
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
