"""The README is true: its Python runs as printed, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

from inverse import cli

README = Path(__file__).parent.parent / "README.md"


def test_the_examples_run_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["samples"].x.shape == (4, 1, 8, 8)
    assert {p.name for p in Path("out").iterdir()} == {
        "samples.npy", "mean.npy", "std.npy", "diagnostics.json"
    }  # fmt: skip
    # The network of the example is the same white prior as the class above it.
    x = 3 * names["torch"].randn(2, 1, 8, 8)
    ours = names["prior"].denoise(x, 0.7)
    assert names["torch"].allclose(ours, names["White"]().denoise(x, 0.7), atol=1e-5)


def test_every_command_is_one_of_the_parser(capsys):
    text = README.read_text()
    commands = set(re.findall(r"^inverse (\w+)", text, re.M))
    assert commands == {"demo", "sample", "reconstruct", "train", "methods"}
    for command in commands:
        assert cli.main([command, "--help"]) == 0
    assert "@@" not in text


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        assert target.startswith("http") or (README.parent / target).exists(), target
