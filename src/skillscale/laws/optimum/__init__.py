"""Compute-optimal N, D and mix, and the price of every other choice."""
