"""Choosing the next runs: what is known, what is asked, what may be run, and the plan that tells most per FLOP."""
