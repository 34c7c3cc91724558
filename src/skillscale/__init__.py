"""skillscale: scaling laws per skill, from small training runs to a plan for large ones."""

__version__ = "0.2.0"
