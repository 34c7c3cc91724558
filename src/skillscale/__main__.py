"""``python -m skillscale ENTRY``: the console command, where the scripts folder is not on PATH."""

from skillscale.cli import console

if __name__ == "__main__":  # a trainer's process imports this file under another name
    console()
