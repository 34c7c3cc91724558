"""Rivals of the Bayesian design, the usual isoFLOP analysis, and the Bayesian design for a pool of runs."""
