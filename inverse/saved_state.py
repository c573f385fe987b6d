"""Whether a command that was interrupted left a state, found without torch, whose import may be
what was interrupted."""

from pathlib import Path


def saved(out: Path) -> bool:
    """Whether a run for this folder left a state from which the same command goes on."""
    state = out / ".state"
    return (state / "state.safetensors").exists() or any(state.rglob("batch*.safetensors"))
