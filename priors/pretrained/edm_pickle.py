"""Tensors and settings out of the pickles in which EDM's networks are published.

A pickle is a program: it names functions to be called, and these keep Python source that their own
loader would compile and run. Here its instructions are read first, and refused if any is one that
plain data do without. Then it runs with stand-ins of this file in place of all that it names, so
that nothing is imported or called for it, and any name but the following is refused:

    torch_utils.persistence._reconstruct_persistent_obj   a record of class name and state; the
                                                          source is dropped, never compiled
    torch.nn.modules.*, dnnlib.util.EasyDict              records of their state
    torch._utils._rebuild_tensor_v2, _rebuild_parameter   a view of a storage, within its bounds
    torch.storage._load_from_bytes                        a storage of as many bytes as are there
    torch.FloatStorage and its kin                        the name of a type
    numpy's scalars, arrays and dtypes                    records, never decoded
    collections.OrderedDict, set                          plain containers

This is the only reader of pickles here. It is used for files that a user names and that end in
.pkl, and there is no fallback to any other.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from .edm_tensors import Held, check_program, storage_of, tensor_of, view
from .safe_files import plain_file

_PERSISTENCE = ("torch_utils.persistence", "_reconstruct_persistent_obj")
_RECORDS = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (f"numpy.{core}.{place}", name)
        for core in ("core", "_core")
        for place, name in (
            ("multiarray", "scalar"),
            ("multiarray", "_reconstruct"),
            ("numeric", "_frombuffer"),
        )
    ),
}
_SLACK = 2**26
# What a published network has is far below these.
_DEPTH = 64
_ENTRIES = 100_000
_NAME = 500


def read_weights(path: Path, *, max_parameters: int = 2**31) -> dict[str, Any]:
    """class_name, init_kwargs and state_dict of the network in a pickle; none of its code is run.

    Of several networks that a training snapshot holds, the average over its steps ("ema").

    Raises:
        FileNotFoundError: no such file.
        ValueError: no regular file; too large; corrupt; not a pickle of EDM, or one that names
            anything beyond the list above.
    """
    path = Path(path)
    plain_file(path)
    size = path.stat().st_size
    if size > 8 * max_parameters + _SLACK:
        raise ValueError(
            f"{path.name} has {size} bytes, more than max_parameters = {max_parameters} values "
            "take; raise max_parameters if that is meant"
        )
    with open(path, "rb") as file:
        data = file.read(size)
    check_program(io.BytesIO(data), path.name)
    try:
        content = _Reader(data).load()
        network = content.get("ema") if type(content) is dict else content
        if not isinstance(network, _Record) or network.class_name is None:
            raise ValueError("no network in it, neither alone nor as 'ema'")
        state = _Collected(network).tensors
        kwargs = network.state.get("_init_kwargs") or {}
        if not isinstance(kwargs, dict) or len(kwargs) > _NAME:
            raise ValueError("its settings are not a dictionary, or a very large one")
        settings = {str(key): _plain(value) for key, value in kwargs.items()}
    except Exception as error:  # a damaged program makes the interpreter raise errors of every kind
        raise ValueError(
            f"{path.name} is corrupt or no pickle of EDM: {str(error)[:200]}"
        ) from error
    total = sum(value.numel() for value in state.values())
    if total > max_parameters:
        raise ValueError(
            f"{path.name} holds {total} values, more than max_parameters = {max_parameters}; "
            "raise max_parameters if that is meant"
        )
    return {
        "class_name": network.class_name,
        "init_kwargs": settings,
        "state_dict": state,
    }


class _Record:
    """Whatever the pickle rebuilds beside plain data and tensors: its state, and nothing it does.

    class_name is that of EDM's own classes, None of others.
    """

    class_name: str | None = None
    state: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.state = state


def _persistent(meta: Any) -> _Record:
    record = _Record()
    if type(meta["class_name"]) is not str:
        raise ValueError("the name of a class is no text")
    record.class_name = meta["class_name"]
    record.__setstate__(meta["state"])
    return record


class _Dictionary(dict[str, Any]):
    """EasyDict, a dictionary whose keys are attributes too."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Reader(pickle.Unpickler):
    """Runs a checked program; every name it may use stands for something of this file.

    What a program has copied, however often it names one thing, is no larger than its file.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.left = len(data)
        # Functions and classes of its own, so that a program can change no other reader's.
        record = type("_Record", (_Record,), {})
        self.others = record
        self.known: dict[tuple[str, str], Any] = {
            _PERSISTENCE: lambda meta: _persistent(meta),
            ("torch._utils", "_rebuild_tensor_v2"): lambda *parts: view(*parts),
            ("torch._utils", "_rebuild_parameter"): lambda value, *_: Held(tensor_of(value)),
            ("torch.storage", "_load_from_bytes"): lambda data: storage_of(self._spend(data)),
            ("collections", "OrderedDict"): lambda: OrderedDict(),
            ("builtins", "set"): lambda values=(): set(self._spend(values)),
            ("dnnlib.util", "EasyDict"): type("_Dictionary", (_Dictionary,), {}),
        } | dict.fromkeys(_RECORDS, record)

    def find_class(self, module: str, name: str) -> Any:
        found = self.known.get((module, name))
        if found is not None:
            return found
        if module.startswith("torch.nn.modules."):
            return self.others
        raise PermissionError(f"it names {module}.{name}, which is never called"[:200])

    def _spend(self, value: Any) -> Any:
        self.left -= len(value)
        if self.left < 0:
            raise ValueError("what it decodes is larger than the file")
        return value


class _Collected:
    """Parameters and buffers of a module and those inside it, by their names."""

    def __init__(self, network: _Record) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.seen: set[_Record] = set()
        self.entries = 0
        self._collect(network, "", _DEPTH)

    def _collect(self, module: _Record, prefix: str, depth: int) -> None:
        if depth == 0:
            raise ValueError(f"its modules are nested deeper than {_DEPTH}")
        if module in self.seen:
            raise ValueError(f"its module {prefix!r} stands in it twice")
        self.seen.add(module)
        for kind in ("_parameters", "_buffers"):
            for name, value in self._entries(module, kind, prefix):
                self.tensors[name] = tensor_of(value).detach()
        for name, inner in self._entries(module, "_modules", prefix):
            if not isinstance(inner, _Record):
                raise ValueError(f"a {type(inner).__name__} stands where a module must")
            self._collect(inner, f"{name}.", depth - 1)

    def _entries(self, module: _Record, kind: str, prefix: str) -> Iterator[tuple[str, Any]]:
        """What of a kind a module has, under whole names; None left out."""
        for name, value in module.state.get(kind, {}).items():
            self.entries += 1
            if self.entries > _ENTRIES:
                raise ValueError(f"it has more than {_ENTRIES} modules and tensors")
            if type(name) is not str or len(prefix) + len(name) > _NAME:
                raise ValueError(f"a name in it is no text of at most {_NAME} characters")
            if value is not None:
                yield f"{prefix}{name}", value


def _plain(value: Any) -> Any:
    """A setting as plain data; tuples and lists of numbers, not of other things."""
    if isinstance(value, list | tuple) and len(value) <= _NAME:
        return [_plain(inner) for inner in value if not isinstance(inner, list | tuple)]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ValueError(f"a setting is a {type(value).__name__}, not a number, a text or a list")
