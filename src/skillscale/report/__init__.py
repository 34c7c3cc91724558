"""Figures, tables and the page, drawn from fitted values."""
