"""How skills differ: verdicts, effects of shares, crossovers, validation sets."""
