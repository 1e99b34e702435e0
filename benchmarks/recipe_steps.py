"""What a step of each recipe costs beside a plain one, in one process.

    python -m benchmarks.recipe_steps [--model resnet10] [--repeats 30] [--output table.txt]

Network, batch and images of ``guidance_study.py``; a step is forward and backward, without the
optimizer, after the warm start. Each recipe's steps are taken in turn with plain ones of the same
network; the ratio is that of the medians.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.guidance_recipes import RESNET, SMALL
from benchmarks.guidance_runs import COMMON
from glioma_xai.config import compose_config
from glioma_xai.experiment import instantiate
from glioma_xai.experiment.timing import step_seconds

RECIPES = (
    *("exchange", "consistency", "lrp_guided", "lrp_guided_consistency", "lrp_guided_paper"),
    *("rrr", "isnet"),
)


def row_of(recipe: str, *, model: str, repeats: int, cache: Path) -> str:
    """Milliseconds of a plain step and of one of the recipe, and their ratio."""
    words = dict(word.split("=", 1) for word in (*COMMON, *SMALL))
    config = compose_config(
        "train",
        [
            f"+experiment={recipe}",
            *(f"{key}={value}" for key, value in words.items()),
            *(RESNET if model == "resnet10" else (f"model={model}",)),
            f"paths.cache={cache}",
        ],
    )
    data = instantiate.build_data(config)
    data.setup("fit")
    module = instantiate.build_module(
        config,
        data=data,
        model=instantiate.build_model(
            config, input_shape=data.input_shape, classes=len(data.classes)
        ),
    ).train()
    module.calibrate()
    batch = next(iter(data.train_dataloader()))
    plain, own = step_seconds(module, batch, repeats=repeats)
    return f"{recipe:24} {1000 * plain:8.1f} {1000 * own:8.1f} {own / plain:7.2f}"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="small_cnn")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--output", type=Path, help="file to which the table is added")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [f"{arguments.model}, one thread, torch {torch.__version__}"]
    lines.append(f"{'recipe':24} {'plain ms':>8} {'own ms':>8} {'ratio':>7}")
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory() as cache:
        for recipe in RECIPES:
            lines.append(
                row_of(
                    recipe,
                    model=arguments.model,
                    repeats=arguments.repeats,
                    cache=Path(cache),
                )
            )
            print(lines[-1], flush=True)
    if arguments.output:
        with arguments.output.open("a") as file:
            file.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
