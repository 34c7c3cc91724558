"""``python -m skillscale ENTRY``: the console command, where the scripts folder is not on PATH."""

from skillscale.cli import console

console()
