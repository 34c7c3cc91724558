"""Write the controlled corpora: biographies of made-up people, whose bits are counted, and random programs.

    python benchmarks/controlled_corpora.py
    skillscale grid --study benchmarks/controlled/study.yaml

The first command writes a folder of parquet files with a manifest, 24 MB in about 100 s on one core, and downloads
nothing. The second trains the study that reads the folder; run both in the root of the repository. With ten times the
people, and a tenth of the biographies for each:

    python benchmarks/controlled_corpora.py --people 2000
    skillscale grid --study benchmarks/controlled/study.yaml --study.name controlled-2000
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from controlled import biographies, programs

from skillscale.lm.data.corpora import write_corpora

FOLDER = Path("build/controlled")  # benchmarks/controlled/*.yaml name the files in it
PEOPLE = range(10, 100_001)
ZIPF_EXPONENTS = (0.0, 3.0)
SETS = ("bios_qa", "bios_qa_trainhalf", "bios_unseen", "bios_stated", "progs_output", "progs_text")


def write(folder: Path, *, people: int, zipf_exponent: float, progress: Callable[[str], None]) -> None:
    """Write both corpora to ``folder``; an earlier folder is replaced."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_corpora(
        folder,
        {
            "bios": lambda: biographies.build(people=people, zipf_exponent=zipf_exponent),
            "progs": programs.build,
        },
        preset="controlled",
        zipf_exponent=zipf_exponent,
        progress=progress,
    )
    progress(f"controlled corpora of {people} people: {folder}")


def main(words: list[str] | None = None) -> None:
    """Read the options and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=200, help="people described in training, 47.59 bits each (200)")
    parser.add_argument("--zipf_exponent", type=float, default=0.0, help="decay of mentions with rank, 0 for equal (0)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where to write ({FOLDER})")
    options = parser.parse_args(words)
    if options.people not in PEOPLE:
        parser.error(f"--people {options.people} is out of range. Give {PEOPLE.start} to {PEOPLE.stop - 1:,}.")
    low, high = ZIPF_EXPONENTS
    if not low <= options.zipf_exponent <= high:
        parser.error(f"--zipf_exponent {options.zipf_exponent:g} is out of range. Give {low:g} to {high:g}.")
    write(options.folder, people=options.people, zipf_exponent=options.zipf_exponent, progress=print)


if __name__ == "__main__":
    main()
