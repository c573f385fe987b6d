"""How far samples are from the posterior they claim to be: figures with uncertainty, and plots.

Each diagnostic is a figure with its uncertainty and draws its plot.
"""

__all__: list[str] = []
