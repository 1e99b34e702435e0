"""How well relevance is conserved: its sum beside the explained logit, worst sample of each row.

    python -m benchmarks.conservation [--published] [--output conservation.csv]

Networks without biases in eval mode, a stabilizer of 1e-12, float64. ``--published`` adds MONAI's.
"""

import argparse
import csv
from pathlib import Path

import torch

from glioma_xai.attribution import build_composite, compute_relevance
from tests.unit.attribution import nets
from tests.unit.attribution.exactness import PUBLISHED, Case
from tests.unit.attribution.test_conservation import WIDE, without_biases

RULE_SETS = ("epsilon", "zplus", "epsilon_plus", "epsilon_plus_flat", "epsilon_gamma_box")


def deviation(case: Case) -> float:
    """Largest |sum of relevance - logit| relative to the logit."""
    model = nets.prepared(WIDE[case.network]()) if case.network in WIDE else case.model()
    model, pixels = without_biases(model), case.images(2)
    box = {"low": -6.0, "high": 6.0} if case.composite == "epsilon_gamma_box" else {}
    composite = build_composite(
        case.composite,
        model,
        input_shape=pixels.shape[1:],
        epsilon=1e-12,
        stabilizer=1e-12,
        **box,
    )
    logits, relevance = compute_relevance(model, pixels, composite, target="predicted")
    explained = logits.detach().amax(1)
    return float(((relevance.flatten(1).sum(1) - explained) / explained).abs().max())


def main() -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    networks = [(name, 3 if name.endswith("3d") else 2) for name in WIDE]
    if arguments.published:
        networks += [(name, dims) for dims in (2, 3) for name in PUBLISHED]
    rows = [("network", "dims", *RULE_SETS)]
    for name, dims in networks:
        found = [deviation(Case(name, dims, "eval", rules, 0)) for rules in RULE_SETS]
        rows.append((name, str(dims), *(f"{value:.0e}" for value in found)))
        print(*rows[-1], sep="  ", flush=True)
        if arguments.output:
            with arguments.output.open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main()
