"""The table of published networks at their real sizes that the pretrained_*.py write into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "pretrained.json"
LIMIT = 1e-5


def record(family: str, name: str, row: dict[str, Any]) -> None:
    """Print a network's row and keep it; stop where D is further off than LIMIT.

    Args:
        row: its "relative_difference" is that of D from an independent evaluation.
    """
    table = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    table.setdefault(family, {})[name] = row
    RESULTS.write_text(json.dumps(table, indent=2) + "\n")
    print(f"{family}: {name:36}", *(f"{k} {v}" for k, v in row.items()), sep="  ", flush=True)
    if not row["relative_difference"] <= LIMIT:
        raise SystemExit(f"{name}: D differs by {row['relative_difference']:.1e}")
