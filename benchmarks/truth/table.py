"""All methods on all problems with exact posteriors: distances, modes and calibration in one table.

    python benchmarks/truth table

Reads distances.json and calibration.json in benchmarks/results, prints the table and writes it to
truth.md beside them, and truth.png. Rows are methods, nearest first; a column is a group of
problems, over which a cell is the mean over those that it samples; a star: of fewer than three
seeds, hardly comparable; a cross: some runs failed and are left out:

    excess   of the sliced W1 distance over that of as many exact draws, data units; where a method
             has samples of some of the group's problems alone, of how many
    mode TV  total variation of the modes' weights
    calibrated   on how many of the problems of calibration.py no fault was found
    calls    network calls a sample; the largest median over the seeds of a problem
    products Jacobian products a sample, as well

Where fewer than 512 samples are drawn (trap, fields, digits) "auto" is the default method, on the
mixtures it is "tds".

In the picture colours are the excess in units of the exact draws' own distance.
"""

from __future__ import annotations

import json
import math
from statistics import fmean
from typing import Any

from distance_summary import RESULTS

import inverse

GROUPS = {
    "mixture d = 8": "mixture 8,", "mixture d = 80": "mixture 80,",
    "mixture d = 800": "mixture 800,", "equal d = 8": "equal 8,", "equal d = 80": "equal 80,",
    "equal d = 800": "equal 800,", "trap A1": "trap A1", "trap A2": "trap A2",
    "fields": "fields", "digits": "digits", "nonlinear": "nonlinear",
}  # fmt: skip
"""Columns, by how the labels of their problems begin."""
Entries = dict[str, dict[str, Any]]
FLOOR, FEW = "floor", 3


def excess(problem: Entries, name: str) -> float | None:
    """Of the entry's seeds where these are known, else the difference of the means."""
    found = problem.get(name, {})
    if "sw" not in found:
        return None
    if "excess" in found:
        return found["excess"][0]
    return found["sw"][0] - problem[FLOOR]["sw"][0]


class Column:
    """A group of problems, and each method's means over those that it sampled."""

    def __init__(self, problems: list[Entries]) -> None:
        self.problems = problems
        self.floor = fmean(p[FLOOR]["sw"][0] for p in problems)

    def sampled(self, name: str) -> list[Entries]:
        return [p for p in self.problems if excess(p, name) is not None]

    def excess(self, name: str) -> float | None:
        found = [e for p in self.problems if (e := excess(p, name)) is not None]
        return fmean(found) if found else None

    def relative(self, name: str) -> float | None:
        """Mean excess in units of the floor of each problem."""
        sampled = self.sampled(name)
        if not sampled:
            return None
        return fmean(excess(p, name) / p[FLOOR]["sw"][0] for p in sampled)  # type: ignore[operator]

    def tv(self, name: str) -> float | None:
        found = [p[name]["tv"][0] for p in self.sampled(name) if "tv" in p[name]]
        return fmean(found) if found else None

    def word(self, name: str) -> str:
        value = self.excess(name)
        if value is None:
            return "fails" if any(name in p for p in self.problems) else "–"
        return short(value) + self.star(name)

    def star(self, name: str) -> str:
        own = [p[name] for p in self.problems if name in p]
        failed = any("failed" in found or "not_finite" in found for found in own)
        few = any(p[name]["seeds"] < FEW for p in self.sampled(name))
        return "*" * few + "†" * failed

    def shown(self, name: str) -> str:
        value, of = self.excess(name), len(self.sampled(name))
        if value is None:
            return self.word(name)
        parts = f" ({of} of {len(self.problems)})" if of < len(self.problems) else ""
        return number(value) + self.star(name) + parts


def number(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.095 else f"{value:.3f}"


def short(value: float) -> str:
    digits = 0 if value >= 9.95 else 1 if value >= 0.995 else 2
    return f"{value:.{digits}f}".replace("-0.00", "0.00")


def columns(results: dict[str, Any]) -> dict[str, Column]:
    found = {}
    for title, start in GROUPS.items():
        problems = [
            p for label, p in results["problems"].items() if label.startswith(start) and FLOOR in p
        ]
        if problems:
            found[title] = Column(problems)
    return found


def calibrated(results: dict[str, Any], name: str) -> tuple[int, int]:
    """On how many problems no fault was found, and of how many that the method can sample."""
    problems = results.get("problems", results)
    entries = [p[name] for p in problems.values() if isinstance(p, dict) and name in p]
    judged = [e for e in entries if "calibrated" in e or "error" in e]
    return sum(bool(e.get("calibrated")) for e in judged), len(judged)


def ranked(table: dict[str, Column]) -> list[str]:
    """Named methods by their mean log (1 + relative excess) over the columns they have."""
    score = {}
    for name in ("auto", *(method.name for method in inverse.methods())):
        found = [c.relative(name) for c in table.values()]
        known = [math.log1p(max(v, 0)) for v in found if v is not None]
        if known:
            score[name] = fmean(known)
    return sorted(score, key=score.__getitem__)


def most(table: dict[str, Column], name: str, key: str) -> str:
    found = [p[name].get(key, 0) for c in table.values() for p in c.sampled(name)]
    return f"{max(found):.0f}"


def share(judged: tuple[int, int]) -> str:
    return f"{judged[0]} of {judged[1]}" if judged[1] else "–"


def markdown(table: dict[str, Column], calibration: dict[str, Any], names: list[str]) -> str:
    heads = ["", *table, "calibrated", "calls", "products"]
    floors = [number(c.floor) for c in table.values()]
    lines = [
        "Sliced W1 above that of exact draws; * fewer than three seeds, † some runs failed; calls "
        "and Jacobian products a sample: the most of any problem. `auto` takes the default method "
        "where fewer than 512 samples are drawn (trap, fields, digits), and `tds` on the mixtures.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|", f"| exact draws (distance) | {' | '.join(floors)} | | | |",
    ]  # fmt: skip
    for name in names:
        cells = [c.shown(name) for c in table.values()]
        cells += [share(calibrated(calibration, name))]
        cells += [most(table, name, "calls"), most(table, name, "products")]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    with_modes = {title: c for title, c in table.items() if c.tv(FLOOR) is not None}
    heads = ["", *with_modes]
    lines += ["", "Total variation of the modes' weights", "", f"| {' | '.join(heads)} |",
              "|---" * len(heads) + "|"]  # fmt: skip
    for name in [FLOOR, *names]:
        values = [c.tv(name) for c in with_modes.values()]
        cells = ["–" if v is None else f"{v:.2f}" for v in values]
        label = "exact draws" if name == FLOOR else f"`{name}`"
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(table: dict[str, Column], calibration: dict[str, Any], names: list[str]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with_modes = {title: c for title, c in table.items() if c.tv(FLOOR) is not None}
    figure, panels = plt.subplots(
        1, 2, figsize=(3 + 0.72 * (len(table) + len(with_modes)), 1.6 + 0.24 * len(names)),
        width_ratios=(len(table), len(with_modes)), layout="constrained",
    )  # fmt: skip
    nearness = [[c.relative(name) for c in table.values()] for name in names]
    logs = [[math.nan if v is None else math.log10(max(v, 0.1)) for v in row] for row in nearness]
    words = [[c.word(name) for c in table.values()] for name in names]
    paint(panels[0], logs, words, (-1, 2), list(table))
    panels[0].set_yticks(
        range(len(names)),
        [f"{name}  ({share(calibrated(calibration, name))})" for name in names], fontsize=8,
    )  # fmt: skip
    panels[0].set_title(
        "sliced W1 above exact draws' (calibrated on)\n* fewer than 3 seeds, † some runs failed",
        fontsize=10,
    )
    variations = [[c.tv(name) for c in with_modes.values()] for name in names]
    values = [[math.nan if v is None else v for v in row] for row in variations]
    words = [["–" if v is None else short(v) for v in row] for row in variations]
    paint(panels[1], values, words, (0, 0.8), list(with_modes))
    panels[1].set_yticks([])
    panels[1].set_title("total variation of mode weights", fontsize=10)
    bar = figure.colorbar(panels[0].images[0], ax=panels[0], shrink=0.5, pad=0.01)
    bar.set_ticks([-1, 0, 1, 2], labels=["≤ 0.1", "1", "10", "100"])
    bar.set_label("excess over the exact draws' own distance", fontsize=8)
    figure.savefig(RESULTS.with_name("truth.png"), dpi=100)


def paint(
    axis: Any,
    values: list[list[float]],
    words: list[list[str]],
    limits: tuple[float, float],
    titles: list[str],
) -> None:
    axis.imshow(values, cmap="RdYlGn_r", vmin=limits[0], vmax=limits[1], aspect="auto")
    for i, row in enumerate(words):
        for j, word in enumerate(row):
            place = (values[i][j] - limits[0]) / (limits[1] - limits[0])
            ink = "white" if place < 0.1 or place > 0.9 else "black"
            axis.text(j, i, word, ha="center", va="center", fontsize=7, color=ink)
    axis.set_xticks(range(len(titles)), titles, rotation=40, ha="right", fontsize=8)
    axis.tick_params(length=0)


def main() -> None:
    table = columns(json.loads(RESULTS.read_text()))
    calibration = json.loads(RESULTS.with_name("calibration.json").read_text())
    names = ranked(table)
    text = markdown(table, calibration, names)
    RESULTS.with_name("truth.md").write_text(text + "\n")
    print(text)
    draw(table, calibration, names)


if __name__ == "__main__":
    main()
