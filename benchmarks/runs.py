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
        text = path.read_text() if path.exists() else ""
        if not text.endswith("\n"):  # the last line was not written whole
            text = text[: text.rfind("\n") + 1]
            if path.exists():
                path.write_text(text)
        super().__init__(json.loads(line) for line in text.splitlines())
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
