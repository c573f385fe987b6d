"""Networks of published checkpoints for which diffusers has none, their tensors named as there."""
