"""The decoder-only transformer, its shape for a size N, and its FLOPs."""
