"""The W&B workspace as code: ``python -m glioma_xai.dashboard <project> [--json]``."""

import argparse
import sys
from collections.abc import Sequence

from glioma_xai.experiment.dashboards import definition, save_workspace
from glioma_xai.experiment.launch import run_command


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; a wrong one exits with 2."""
    parser = argparse.ArgumentParser(
        prog="python -m glioma_xai.dashboard",
        description="Make the W&B workspace in which all runs of a project share their axes.",
    )
    parser.add_argument("project", help="W&B project, such as glioma_xai")
    parser.add_argument(
        "--json", action="store_true", help="print the definition; needs no network and no account"
    )
    parser.add_argument("--entity", default="", help="W&B user or team; default: the account's own")
    return parser.parse_args(arguments)


def dashboard(arguments: Sequence[str]) -> None:
    """Print the definition, or make the workspace and print its address."""
    options = parse(arguments)
    make = definition if options.json else save_workspace
    print(make(options.project, options.entity))


def main() -> None:
    """Entry point."""
    sys.exit(run_command(lambda: dashboard(sys.argv[1:])))


if __name__ == "__main__":
    main()
