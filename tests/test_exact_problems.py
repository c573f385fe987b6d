"""The judge of benchmarks/truth: exact draws have the figures that theory says, others have not."""

from __future__ import annotations

import json

import pytest
import torch

from inverse.diagnostics import conversion_errors

LABELS = ("mixture 8,2", "equal 8,4,0.1", "trap A1, 0.5", "fields pixels", "nonlinear moduli")


@pytest.fixture(scope="module")
def benchmark(benchmarks):
    """The modules distances, distance_summary and posed."""
    import distance_summary
    import distances
    import posed

    return distances, distance_summary, posed


@pytest.mark.parametrize("label", LABELS)
def test_exact_draws_have_the_figures_of_exact_draws(benchmark, label):
    distances, _, posed = benchmark
    family = distances.FAMILIES[label.partition(" ")[0]]
    instance = family.problems[label](0)
    judge = posed.Judge(instance, 0)
    exact = judge(judge.exact(family.n, stream=2), None)
    assert abs(exact["coverage"] - 0.9) < 0.03
    assert abs(exact["chi2"] - 1) < 0.3
    assert exact["ess"] == pytest.approx(family.n)
    assert exact.get("tv", 0) < 0.05
    # Both are means over n draws: errors of about n^(-1/2).
    assert 0.5 < exact.get("mean_error", family.n**-0.5) * family.n**0.5 < 1.5
    assert abs(exact.get("variance", 1) - 1) < 0.2
    prior = judge(instance.prior.sample(family.n, torch.Generator().manual_seed(1)), None)
    assert prior["sw"] > 2 * exact["sw"]
    assert prior["chi2"] > 1.5 * exact["chi2"]


def test_a_named_method_makes_the_calls_it_is_given(benchmark):
    distances, _, posed = benchmark
    instance = distances.FAMILIES["trap"].problems["trap A1, 0.5"](0)
    run = posed.named(instance, "mmps", 20, 10, 0)
    row = distances.measure(run, instance, posed.Judge(instance, 0))
    assert row["calls"] == 10
    assert row["sw"] < 1


def test_runs_of_fewer_seeds_leave_the_known_entry(benchmark, tmp_path):
    _, summary, _ = benchmark
    out = tmp_path / "distances.json"

    def rows(method, seeds, sw):
        return [
            {"problem": "trap", "method": name, "seed": seed, "sw": value}
            for seed in range(seeds) for name, value in (("floor", 0.1), (method, sw))
        ]  # fmt: skip

    summary.keep(rows("tds", 3, 0.5), out)
    summary.keep(rows("mmps", 2, 0.7) + rows("tds", 2, 0.9), out)
    found = json.loads(out.read_text())["problems"]["trap"]
    assert found["tds"]["sw"] == [0.5, 0.0]
    assert found["tds"]["seeds"] == 3
    assert found["mmps"]["excess"] == [0.6, 0.0]


def test_a_run_that_failed_is_tried_again(benchmark, tmp_path):
    """Its row gives way to the later one of the same run, in the file's reading too."""
    rows = benchmark[0].Rows(tmp_path / "runs.jsonl", "method", "seed")
    for seed in (0, 1):
        rows.add({"method": "dps", "seed": seed, "error": "DivergenceError"})
    assert not rows.has("dps", 0)
    rows.add({"method": "dps", "seed": 0, "sw": 0.5})
    for known in (rows, benchmark[0].Rows(tmp_path / "runs.jsonl", "method", "seed")):
        assert known.has("dps", 0)
        assert not known.has("dps", 1)
        assert not known.has("dps", 2)
        assert [row.get("sw") for row in known] == [0.5, None]


@pytest.mark.parametrize(("words", "told"), [
    (["--problems", "trip"], "no problem 'trip'; known: mixture; "),
    (["--seeds", "0"], "--seeds 0: must be at least 1"),
    (["--problems", "trap", "--methods", "tds", "mpms"], "no method 'mpms' of these problems; kn"),
    (["--problems", "trap", "--methods", "reference: exact"], "no method 'reference: exact' of"),
])  # fmt: skip
def test_what_no_problem_knows_is_refused_before_any_run(
    benchmark, tmp_path, monkeypatch, words, told
):
    runs = tmp_path / "runs.jsonl"
    monkeypatch.setattr("sys.argv", ["distances", *words, "--runs", str(runs)])
    with pytest.raises(SystemExit) as refusal:
        benchmark[0].main()
    assert str(refusal.value).startswith(told)
    assert "\n" not in str(refusal.value)
    assert not runs.exists()


def test_what_a_family_has_beside_the_named_methods_can_be_asked_for(benchmark):
    distances, _, _ = benchmark
    distances.check(["floor", "auto", "reference: exact", "tds, absorbed"], ["mixture 8,1"])
    with pytest.raises(SystemExit, match="absorbed"):
        distances.check(["tds, absorbed"], ["equal 8,1,0.1"])


def test_the_table_is_that_of_the_committed_results(benchmark):
    import table

    results = json.loads(table.RESULTS.read_text())
    calibration = json.loads(table.RESULTS.with_name("calibration.json").read_text())
    columns = table.columns(results)
    text = table.markdown(columns, calibration, table.ranked(columns))
    assert table.RESULTS.with_name("truth.md").read_text() == text + "\n"


def test_what_is_exact_for_gaussians_has_no_error_of_conversion(benchmark, tmp_path, monkeypatch):
    import conversion

    monkeypatch.setattr(conversion, "LEARNABLE", 0)
    found = conversion.summary([conversion.measured("P1", 0, 8, 0)])
    for path in ("posterior", "prior"):
        for name in ("TMPD, MMPS", "JFPS, Cov[x0]", "pooled, 512 draws"):
            figures = found[path][name]
            assert max(row[0] for row in figures["score"] + figures["log"]) < 1e-6
        assert found[path]["plug-in"]["score"][-1][0] > 1
    out = tmp_path / "conversion.json"
    row = {"seeds": 1, **found}
    conversion.keep("P1", row, out)
    conversion.keep("mixture 8,1", row, out)
    assert list(json.loads(out.read_text())["problems"]) == ["mixture 8,1", "P1"]
    for stem in ("conversion", "conversion_others"):
        assert (tmp_path / f"{stem}.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("label", ["ring", "P4 blur", "trap A1, 0.2"])
def test_no_likelihood_that_is_listed_is_refused(benchmark, label):
    import conversion_lifts
    import conversion_problems

    case = conversion_problems.PROBLEMS[label](0)
    lifts = conversion_lifts.lifts(case)
    assert ("pooled, 512 draws" in lifts) == (label == "trap A1, 0.2")
    lifts.pop("reverse runs, 32", None)
    found = conversion_errors(case.prior, case.model, case.y, lifts, (1.0,), draws=4)
    assert [e.lift for e in found.errors if e.reason] == []
