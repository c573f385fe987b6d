"""Options of a method written as text, read by the kind of their default."""

from __future__ import annotations

import ast
import math
import re
from typing import Any

from .recipes import Method


def read(method: Method, texts: list[str]) -> dict[str, Any]:
    """KEY=VALUE texts as options of a method.

    Whole numbers, numbers (also as 1e-3 or inf), true and false, names as they are, and several
    numbers with commas between them, with or without brackets. Where the default is None a number,
    a name or None, of which the method takes what it knows.

    Raises:
        TypeError: the name of no option. ValueError: a text that is not KEY=VALUE, or a value of
            another kind than the default.
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, found, value = (part.strip() for part in text.partition("="))
        if not found or not name:
            raise ValueError(f"--option {text}: expected KEY=VALUE")
        method.check_option(name)
        default = method.options[name]
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
    if text != "None" and re.fullmatch(r"[A-Za-z][\w-]*", text):
        return _number(text) if text in _NUMBERS else text
    return ast.literal_eval(text)


_TRUTH = ("true", "false")
_NUMBERS = ("inf", "nan")


def _number(text: str) -> float:
    value = float(text)
    return _fail() if math.isnan(value) else value


def _fail() -> Any:
    raise ValueError


def _kind(default: Any) -> str:
    if isinstance(default, tuple):
        return f"{len(default)} numbers"
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}
    return kinds.get(type(default), "a number, a name or None")
