"""Runs of a benchmark in a file, one JSON line each: a run that is there is not run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Rows(list[dict[str, Any]]):
    """The rows of a file, and those added since, which are written at once.

    Args:
        path: of the file; it need not be there yet.
        keys: the entries that tell one run from another.
    """

    def __init__(self, path: Path, *keys: str) -> None:
        lines = path.read_text().splitlines() if path.exists() else []
        super().__init__(json.loads(line) for line in lines)
        self.path, self.keys = path, keys
        self._done = {tuple(row[key] for key in keys) for row in self}

    def has(self, *values: Any) -> bool:
        """Whether there is a run with these values of the keys."""
        return values in self._done

    def add(self, row: dict[str, Any]) -> None:
        self.append(row)
        self._done.add(tuple(row[key] for key in self.keys))
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
