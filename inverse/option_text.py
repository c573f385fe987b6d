"""Options of a method written as text, read by the kind of their default."""

from __future__ import annotations

import ast
import math
from typing import Any

from .recipes import Method


def read(method: Method, texts: list[str]) -> dict[str, Any]:
    """KEY=VALUE texts as options of a method; unknown keys are left for it to refuse.

    Whole numbers, numbers (also as 1e-3 or inf), true and false, names as they are, and several
    numbers with commas between them, with or without brackets.

    Raises:
        ValueError: a text that is not KEY=VALUE, or a value of another kind than the default.
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, found, value = (part.strip() for part in text.partition("="))
        if not found or not name:
            raise ValueError(f"--option {text}: expected KEY=VALUE")
        default = method.options.get(name)
        try:
            options[name] = _value(value, default)
        except (ValueError, SyntaxError, TypeError, OverflowError):
            raise ValueError(
                f"--option {text}: expected {_kind(default)}, such as {name}={default}"
            ) from None
    return options


def _value(text: str, default: Any) -> Any:
    if isinstance(default, bool):
        return {"true": True, "false": False}[text.lower()] if text.lower() in _TRUTH else _fail()
    if isinstance(default, int):
        return int(text)
    if isinstance(default, float):
        return _number(text)
    if isinstance(default, tuple):
        parts = text.strip("()[] ").split(",")
        return tuple(map(_number, parts)) if len(parts) == len(default) else _fail()
    if isinstance(default, str):
        return text.strip("'\"")
    return ast.literal_eval(text)


_TRUTH = ("true", "false")


def _number(text: str) -> float:
    value = float(text)
    return _fail() if math.isnan(value) else value


def _fail() -> Any:
    raise ValueError


def _kind(default: Any) -> str:
    if isinstance(default, tuple):
        return f"{len(default)} numbers"
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}
    return kinds.get(type(default), "a number or None")
