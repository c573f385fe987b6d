"""Runs of a benchmark in a file, one JSON line each: a run that is there is not run again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Rows(list[dict[str, Any]]):
    """The rows of a file, and those added since, which are written at once: one for each run.

    A row takes the place of an earlier one of the same run. A run with an "error" counts as not
    there: it is tried again.

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
        super().__init__()
        self.path, self.keys = path, keys
        self._places: dict[tuple[Any, ...], int] = {}
        for line in text.splitlines():
            self._put(json.loads(line))

    def has(self, *values: Any) -> bool:
        """Whether there is a run with these values of the keys that went well."""
        return values in self._places and "error" not in self[self._places[values]]

    def add(self, row: dict[str, Any]) -> None:
        self._put(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def _put(self, row: dict[str, Any]) -> None:
        run = tuple(row[key] for key in self.keys)
        if run in self._places:
            self[self._places[run]] = row
        else:
            self._places[run] = len(self)
            self.append(row)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """While others that would write `out` wait."""
    name = hashlib.blake2b(str(out.resolve()).encode(), digest_size=8).hexdigest()
    with (Path(tempfile.gettempdir()) / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def replace(out: Path, found: dict[str, Any]) -> None:
    """Write `found` as JSON in one go, each list of numbers on one line."""
    text = json.dumps(found, indent=1)
    text = re.sub(r"\[\n[^\[\]{}\"]*\]", lambda m: re.sub(r"\s+", " ", m.group()), text)
    fresh = out.with_suffix(".part")
    fresh.write_text(text + "\n")
    fresh.replace(out)
