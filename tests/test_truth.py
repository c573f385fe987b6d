"""The benchmarks of exact posteriors, short: calibration and distances on P1 to P3, and labels.

Thresholds are set by nulls simulated under exact draws: of D, Kolmogorov's distance of 150 uniform
ranks, by 400,000 sets of them; of sliced W1 and mode weights on P2 and P3, by sets of exact draws.
The 6 assertions on ranks that exact draws could fail have a false-alarm rate of 5e-5 each; the 8 on
distances allow 6 standard deviations of their nulls. Together fewer than 1e-3 of seeds alarm.

What they catch is asserted beside: exact draws for a noise level 1.5 times too large, draws without
the heaviest mode, `dps` as too narrow and too far, `diffpir` as too wide, `mmps` as too far.
"""

from __future__ import annotations

import importlib
import json

import pytest
import torch

import inverse
import priors
from forward_models import LinearGaussian
from inverse.diagnostics.modes import mode_weights
from inverse.diagnostics.sliced import Slices
from inverse.recipes.measured import MEASURED, UNMEASURED
from inverse.recipes.recipe import is_fault

N, LEVEL = 150, 5e-5
PROBLEMS = ("P1", "P2", "P3")
SETS, DRAWS = 8, 500


@pytest.fixture(scope="module")
def truth(benchmarks):
    """Problems and labels of the benchmarks."""
    return importlib.import_module("labels")


@pytest.fixture(scope="module")
def most():
    """The distance D that N uniform ranks exceed with probability LEVEL, by simulation."""
    g, found = torch.Generator().manual_seed(0), []
    steps = torch.arange(N + 1) / N
    for _ in range(40):
        u = torch.rand(10_000, N, generator=g).sort(1).values
        found.append(torch.maximum(steps[1:] - u, u - steps[:-1]).amax(1))
    return float(torch.cat(found).double().sort().values[-int(400_000 * LEVEL)])


def distance(problem, method, **options) -> tuple[float, inverse.diagnostics.Calibration]:
    """The D of the ranks of log p(y | x)."""
    found = inverse.calibrate(*problem, method, n=N, **options)
    return found.ranks["log p(y|x)"].distance, found


@pytest.mark.parametrize("label", PROBLEMS)
def test_exact_draws_and_twisted_particles_are_calibrated(truth, most, one_thread, label):
    problem = truth.PROBLEMS[label]()
    assert distance((problem.exact, problem.model), "exact")[0] < most
    assert distance((problem.prior, problem.model), "tds", steps=100)[0] < most


def test_faults_fail_the_same_test(truth, most, one_thread):
    for label, method, wide in (("P1", "dps", False), ("P1", "diffpir", True),
                                ("P3", "diffpir", True)):  # fmt: skip
        problem = truth.PROBLEMS[label]()
        D, found = distance((problem.prior, problem.model), method, steps=100)
        assert most < D, (label, method, D)
        assert (found.evidence.widths["measured"].value > 1) is wide, (label, method)
    problem = truth.PROBLEMS["P3"]()
    louder = LinearGaussian(problem.model.operator, 1.5 * problem.model.sigma)

    def misjudged(y, n, seed):
        return problem.exact.condition(louder, y).sample(n, torch.Generator().manual_seed(seed))

    assert most < distance((problem.exact, problem.model), misjudged)[0]


@pytest.fixture(scope="module", params=["P2", "P3"])
def posed(truth, request):
    """y of SETS truths, the exact posteriors, directions and exact sets to compare with."""
    problem = truth.PROBLEMS[request.param]()
    g = torch.Generator().manual_seed(5)
    y = problem.model.simulate(problem.prior.sample(SETS, g), g)
    exact = [problem.exact.condition(problem.model, y[i : i + 1]) for i in range(SETS)]
    slices = [Slices(p.sample(2000, g), projections=40) for p in exact]
    return problem, y, exact, slices


def means(posed, sets) -> tuple[float, float]:
    """Mean sliced W1, and mean total variation of the modes, over the SETS problems."""
    _, _, exact, slices = posed
    w1, variation = [], []
    for p, s, (x, w) in zip(exact, slices, sets, strict=True):
        w1.append(float(s.to(x, w).w1.mean()))
        variation.append(mode_weights(x, p, weights=w, replicates=1).variation.value)
    return sum(w1) / SETS, sum(variation) / SETS


def bounds(posed, sizes) -> torch.Tensor:
    """Null mean and 6 standard deviations of both figures, for exact sets of these sizes, (2,)."""
    g, found = torch.Generator().manual_seed(6), []
    for _ in range(60):
        sets = [(p.sample(n, g), None) for p, n in zip(posed[2], sizes, strict=True)]
        found.append(torch.tensor(means(posed, sets)))
    null = torch.stack(found)
    return null.mean(0) + 6 * null.std(0)


def of_method(posed, name):
    """The samples of each of the problems, and their weights."""
    problem, y, _, _ = posed
    found = inverse.sample(
        inverse.condition(problem.prior, problem.model, y), SETS * DRAWS, method=name, steps=100,
        seed=7,
    )  # fmt: skip
    return [(group.x, group.weights) for group in found.groups]


def test_samples_are_as_near_the_posterior_as_exact_ones(posed, one_thread):
    """Particles count as as many draws as their weights are worth; other sets as they are."""
    _, _, exact, _ = posed
    limit = bounds(posed, [DRAWS] * SETS)
    g = torch.Generator().manual_seed(8)
    found = torch.tensor(means(posed, [(p.sample(DRAWS, g), None) for p in exact]))
    assert (found < limit).all(), (found, limit)
    particles = of_method(posed, "tds")
    worth = [int(1 / float(w.square().sum())) for _, w in particles]
    assert min(worth) > DRAWS // 5  # few would be allowed to be anywhere
    found, allowed = torch.tensor(means(posed, particles)), bounds(posed, worth)
    assert (found < allowed).all(), (found, allowed)
    dropped = []
    for p in exact:
        keep = torch.ones(len(p.weights), dtype=torch.bool)
        keep[p.weights.argmax()] = False
        kept = [c for c, k in zip(p.C, keep, strict=True) if k]
        rest = priors.Mixture(p.means[keep], kept, p.weights[keep] / p.weights[keep].sum())
        dropped.append((rest.sample(DRAWS, g), None))
    found = torch.tensor(means(posed, dropped))
    assert (found > limit).all(), (found, limit)
    for name in ("mmps", "dps"):
        found = torch.tensor(means(posed, of_method(posed, name)))
        assert (found > limit).all(), (name, found, limit)


def test_labels_are_what_the_benchmark_found(truth):
    cells = json.loads(truth.RESULTS.read_text())
    found = {m.name: truth.label(m.name, cells) for m in inverse.methods()}
    assert found == MEASURED | UNMEASURED
    assert truth.OUT.read_text() == truth.source(cells)
    for method in inverse.methods():
        runs = {p: c.get(method.name, {}) for p, c in cells.items() if p.startswith("P")}
        judged = {p: run for p, run in runs.items() if run.keys() - {"refused", "seed", "n"}}
        assert method.measured.startswith("not measured: ") == (not judged), method.name
        assert set(MEASURED.get(method.name, {})) == set(judged)
        for p, run in judged.items():
            passed, _, failed = method.measured.partition("not calibrated on")
            shown = passed if run.get("calibrated") else failed
            assert truth.NAMES[p] in shown, (method.name, p)
        if method.calibrated:
            assert {"P1", "P2", "P3"} <= set(judged), method.name
            assert all(run["calibrated"] for run in judged.values()), method.name
            assert not any(run["log_likelihood"]["fault"] for run in judged.values())


def test_what_decides_nothing_is_no_pass(truth):
    run = {"findings": [], "calibrated": False, "verdict": "undecided: no fault found in 25"}
    assert truth.fault(run) == "undecided"
    told = (
        "calibrated: no fault found; but on average over them, by few of them, too wide by 18 % "
        "+- 2 % in single values, too narrow by 22 % +- 3 % in what is measured"
    )
    passed = {"findings": [], "calibrated": True, "verdict": told}
    assert truth.fault(passed) == "but few simulations are too narrow by 22 % in what is measured"
    assert not is_fault(truth.fault(passed))
    assert is_fault("undecided")


def test_the_whole_run_asks_for_what_there_is(benchmarks, capsys):
    """Each command's options are known, and so are its problems and methods."""
    everything, distances = (importlib.import_module(k) for k in ("everything", "distances"))
    assert everything.COMPLETE.keys() - everything.JOBS.keys() == {"power"}
    seen = set()
    for commands in (*everything.JOBS.values(), *everything.COMPLETE.values()):
        for part, *options in commands:
            if part == "distances":
                seen.update(distances.asked(options).problems)
    families = [label for family in distances.FAMILIES.values() for label in family.problems]
    assert seen == {label for label in families if not label.startswith("equal 800")} | {
        f"equal 800,{m},0.1" for m in (1, 2, 4)
    }
    with pytest.raises(SystemExit, match="no method 'tdz'"):
        distances.asked(["--problems", "mixture 8,1", "--without", "tdz"])
