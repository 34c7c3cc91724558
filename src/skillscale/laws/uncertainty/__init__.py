"""Intervals: bootstraps, resamples of isoFLOP minima, diagnostics of a fit."""
