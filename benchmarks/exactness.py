"""How exact the gradients of relevance are, beside stock Zennit's.

    python -m benchmarks.exactness [--kinds small published] [--output exactness.csv]

Prints one row for each rule set, network and mode. Rows that the file already holds for this
version of the engine are not measured again, so an interrupted table goes on where it stopped.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path

import torch

from tests.unit.attribution.exactness import Case, Row, cases, engine, measure

COLUMNS = [field.name for field in fields(Row)]


def done(path: Path) -> Iterator[tuple[str, ...]]:
    """Network, dims, mode and composite of each row of the file."""
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["engine"] == engine():
                yield row["network"], row["dims"], row["mode"], row["composite"]


def key(case: Case) -> tuple[str, ...]:
    return case.network, str(case.dims), case.mode, case.composite


def main() -> None:
    """Parse the command line, measure what is missing, append and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", default=["small", "published"])
    parser.add_argument("--output", type=Path, default=Path("exactness.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path: Path = arguments.output
    if not path.exists():
        path.write_text(",".join(COLUMNS) + "\n")
    known = set(done(path))
    for case in cases(tuple(arguments.kinds)):
        if key(case) in known:
            continue
        row = measure(case)
        shown = {
            **asdict(row),
            "kinks": f"{row.kinks:.2f}",
            "worst": f"{row.worst:.1e}",
            "median": f"{row.median:.1e}",
            "seconds": f"{row.seconds:.0f}",
        }
        with path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(shown)
        print(*shown.values(), sep="  ", flush=True)


if __name__ == "__main__":
    main()
