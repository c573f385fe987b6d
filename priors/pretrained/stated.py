"""What a user states of a checkpoint: a model's name, settings, a class, a shape."""

from __future__ import annotations

import difflib
from typing import Any

from .formats import Options

Kinds = dict[str, tuple[type, ...]]


def published(
    models: dict[str, dict[str, Any]], name: str, format: str, word: str
) -> dict[str, Any]:
    """The settings of a published model; word is what the format calls one."""
    if name not in models:
        close = difflib.get_close_matches(name, models, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(
            f"unknown {format} model {name!r:.80}{hint} Known: {', '.join(models)}. Else pass the "
            f"{word}s as a dictionary"
        )
    return dict(models[name])


def checked(
    settings: dict[str, Any], kinds: Kinds, without_effect: tuple[str, ...], format: str, word: str
) -> dict[str, Any]:
    """Settings by known names with values of their types; those without effect are left out."""
    values = {key: value for key, value in settings.items() if key not in without_effect}
    unknown = sorted(map(str, set(values) - set(kinds)))
    if unknown:
        raise ValueError(f"unknown {format} {word}s {unknown}; known: {', '.join(kinds)}"[:1200])
    for key, value in values.items():
        if type(value) not in kinds[key]:
            named = " or ".join(kind.__name__ for kind in kinds[key])
            raise ValueError(f"{word} {key} must be of type {named}, got {value!r:.80}")
    return values


def checked_label(label: int | str | None, classes: int | None) -> int | None:
    """A class for networks with classes, and for no other."""
    if classes is None:
        if label is not None:
            raise ValueError(f"this network knows no classes; leave class_label out, got {label}")
        return None
    if label is None or label == "null":
        raise ValueError(
            f"this network was trained with {classes} classes and none that stands for all; pass "
            f"class_label=0 .. {classes - 1}"
        )
    if type(label) is not int:
        raise TypeError(f"class_label must be an int, got {type(label).__name__}")
    if not 0 <= label < classes:
        raise ValueError(f"class_label must be 0 .. {classes - 1}, got {label}")
    return label


def image_shape(channels: int, side: int, levels: int, options: Options) -> tuple[int, ...]:
    """(C, H, W) as asked for, or of the images that a network was trained on.

    levels: of the network, each but the last of which halves height and width.
    """
    shape = options.event_shape or (channels, side, side)
    least = 2 ** (levels - 1)
    if len(shape) != 3 or shape[0] != channels or any(n % least for n in shape[1:]):
        raise ValueError(
            f"event_shape must be ({channels}, H, W) with H and W multiples of {least} for this "
            f"network, got {tuple(shape)}"
        )
    return tuple(shape)
