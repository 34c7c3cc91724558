"""Fit a law to the runs of a skill: data, objective, solver, joint fits, predictions."""
