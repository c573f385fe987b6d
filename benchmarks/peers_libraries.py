"""The peers that are installed: deepinv and azula, each by the module that runs its methods."""

from __future__ import annotations

import importlib
from types import ModuleType


def libraries() -> dict[str, ModuleType]:
    found = {}
    for name in ("deepinv", "azula"):
        try:
            found[name] = importlib.import_module(f"peers_{name}")
        except ModuleNotFoundError as missing:
            print(f"{name} left out: {missing}")
    return found
