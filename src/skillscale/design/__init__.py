"""Bayesian optimal design: posteriors of the laws, targets, allowed runs, and the most informative runs per FLOP."""
