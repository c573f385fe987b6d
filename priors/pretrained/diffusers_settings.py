"""Settings of diffusers' classes: their defaults, and values of a JSON file checked by key."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """diffusers without its notes, which concern pipelines that are not used here."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def defaults(kind: type) -> dict[str, Any]:
    """The settings that a class of diffusers declares, with their defaults."""
    parameters = inspect.signature(kind).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def check_like(default: Any, value: Any, where: str) -> None:
    """Refuse a setting whose JSON type is not that of its default; None passes."""
    kinds = {bool: (bool,), int: (int, float), float: (int, float), str: (str,), tuple: (list,)}
    allowed = kinds.get(type(default))
    if value is not None and allowed is not None and type(value) not in allowed:
        raise ValueError(f"{where} must be like {default!r:.80}, got {value!r:.80}")


class Settings:
    """A scheduler's settings, the class's defaults where the file is silent."""

    def __init__(self, raw: dict[str, Any], name: str) -> None:
        with quiet():
            import diffusers

            kind = getattr(diffusers, name)
        self.name, self.values = name, {**defaults(kind), **raw}

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def number(self, key: str, low: float, high: float) -> float:
        value = self.get(key)
        if not _is_number(value) or not low <= value <= high:
            raise ValueError(
                f"{self.name}: {key} must be a number from {low:g} to {high:g}, got {value!r:.80}"
            )
        return float(value)

    def numbers(self, key: str) -> list[float]:
        values = self.get(key)
        if not isinstance(values, list) or len(values) < 2 or not all(map(_is_number, values)):
            raise ValueError(f"{self.name}: {key} must be a list of at least two numbers")
        return values

    def count(self, key: str, low: int, high: int) -> int:
        value = self.number(key, low, high)
        if value != int(value):
            raise ValueError(f"{self.name}: {key} must be a whole number, got {value}")
        return int(value)

    def range(self, low: str, high: str) -> tuple[float, float]:
        ends = self.number(low, 1e-12, 1e12), self.number(high, 1e-12, 1e12)
        if ends[0] >= ends[1]:
            raise ValueError(f"{self.name}: need {low} < {high}, got {ends[0]} and {ends[1]}")
        return ends

    def choice(self, key: str, known: tuple[str, ...], missing: str | None = None) -> str:
        value = self.values.get(key, missing)
        if value not in known:
            raise ValueError(
                f"{self.name}: {key} {value!r:.80} is not supported; known: {', '.join(known)}"
            )
        return str(value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
