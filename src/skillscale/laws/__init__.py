"""Scaling laws, their fits, their intervals: numpy, scipy and pandas; pure, no files, no clock."""
