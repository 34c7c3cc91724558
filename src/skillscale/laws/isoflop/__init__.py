"""IsoFLOP curves: the minimum of each budget, and the power law through the minima."""
