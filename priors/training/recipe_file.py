"""Recipes as YAML: plain values only, every key known, none twice."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .checks import RecipeError, faults_of
from .recipe import Recipe

_LIMIT = 2**20

# YAML 1.1 takes 1e-3 for a word.
_SCIENTIFIC = (
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)
T = TypeVar("T")


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe of a prior in a YAML file, with `section.key=value` changes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: naming the key, what came and what was expected.
    """
    return read(path, changes, lambda values: Recipe)


def read(path: Path, changes: Sequence[str], kind: Callable[[dict[str, Any]], type[T]]) -> T:
    """The dataclass in a YAML file that `kind` chooses by its values, as `read_recipe`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: naming the key, what came and what was expected.
    """
    if not path.is_file():
        hint = "; write the recipe's name before the changes" if "=" in str(path) else ""
        raise FileNotFoundError(f"{path}: no such recipe; name a YAML file{hint}")
    with open(path, "rb") as file:
        raw = file.read(_LIMIT + 1)
    if len(raw) > _LIMIT:
        raise ValueError(f"{path}: is larger than {_LIMIT} bytes; a recipe is a short file")
    try:
        values = parse(raw.decode("utf-8"))
        if not isinstance(values, dict):
            raise ValueError("a recipe is made of lines 'key: value'")
        for change in changes:
            _change(values, change)
        return build(kind(values), values)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is no UTF-8 text") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def recipe_text(recipe: Any) -> str:
    """The recipe as YAML that `read_recipe` reads back to an equal one."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Puts words in quotes that `parse` would take for numbers."""

    Dumper.add_implicit_resolver(*_SCIENTIFIC)
    text: str = yaml.dump(_plain(recipe), Dumper=Dumper, sort_keys=False, default_flow_style=None)
    return text


def parse(text: str) -> Any:
    """YAML of plain values: no tags, anchors or aliases, no key twice, 1e-3 a number."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise ValueError(f"line {event.start_mark.line + 1}: anchors and aliases (& *) are "
                                 "not read; write the value out")  # fmt: skip
            if getattr(event, "tag", None) is not None:
                raise ValueError(f"line {event.start_mark.line + 1}: the tag {event.tag!r:.60} is "
                                 "not read; write plain values")  # fmt: skip
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise ValueError(f"line {key.start_mark.line + 1}: a key must be a word")
                if key.value in seen:
                    raise ValueError(
                        f"line {key.start_mark.line + 1}: {key.value!r:.60} is given twice"
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver(*_SCIENTIFIC)
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"is no YAML: {' '.join(str(error).split())[:160]}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def build(kind: type[T], values: Any, where: str = "") -> T:
    """A dataclass from a mapping, sections and types checked; all faults in one error."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where or 'the recipe'} must have keys of its own, got {values!r:.60}")
    hints = get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    prefix = f"{where}." if where else ""
    needed = [
        f.name
        for f in fields.values()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    faults = [f"{prefix}{name} is missing" for name in needed if name not in values]
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean {prefix}{close[0]}?" if close else ""
            faults.append(f"unknown key {prefix}{key!s:.60}{hint}; known: {', '.join(fields)}")
            continue
        try:
            given[key] = _value(hints[key], value, prefix + key)
        except ValueError as error:
            faults += faults_of(error)
    if all(name in given for name in needed):
        try:
            made = kind(**given)
            if not faults:
                return made
        except ValueError as error:
            own = [f if f.startswith(prefix) else prefix + f for f in faults_of(error)]
            # Where other values are wrong or left out, it is certain of single values alone.
            sure = tuple(f"{prefix}{key} must be " for key in given)
            faults += [f for f in own if not faults or f.startswith(sure)]
    raise RecipeError(faults)


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build(hint, {} if value is None else value, where)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        if value is None and types.NoneType in parts:
            return None
        parts = tuple(p for p in parts if p is not types.NoneType)
        if len(parts) == 1:
            return _value(parts[0], value, where)
        for part in parts:
            try:
                return _value(part, value, where)
            except ValueError:
                continue
    elif origin is Literal:
        if value in parts and type(value) is str:
            return value
        close = difflib.get_close_matches(str(value), parts, n=1)
        hint_text = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"{where} must be one of {', '.join(map(str, parts))}, got {value!r:.60}{hint_text}"
        )
    elif origin is tuple and isinstance(value, list):
        if parts[-1] is Ellipsis:
            return tuple(_value(parts[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) == len(parts):
            return tuple(_value(p, v, where) for p, v in zip(parts, value, strict=True))
    elif hint is float and type(value) in (int, float):
        return float(value)
    elif hint is types.NoneType and value is None:
        return None
    elif hint in (int, bool, str) and type(value) is hint:
        return value
    raise ValueError(f"{where} must be {_words(hint)}, got {value!r:.60}")


def _words(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text",
             types.NoneType: "null"}  # fmt: skip
    if hint in names:
        return names[hint]
    if origin in (Union, types.UnionType):
        return " or ".join(_words(p) for p in parts)
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if parts[-1] is Ellipsis:
        return f"a list, each {_words(parts[0])}"
    return f"[{', '.join(_words(p) for p in parts)}]"


def _change(values: dict[str, Any], change: str) -> None:
    name, equals, text = change.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ValueError(f"{change!r:.60} is no change; write section.key=value")
    inner = values
    for key in keys[:-1]:
        found = inner.get(key)
        if found is None:
            found = inner[key] = {}
        if not isinstance(found, dict):
            raise ValueError(f"{name}: {key} is no section")
        inner = found
    inner[keys[-1]] = parse(text)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
