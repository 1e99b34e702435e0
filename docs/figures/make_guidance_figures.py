"""Figures of docs/guidance.md: python docs/figures/make_guidance_figures.py."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
RESULTS = HERE.parent.parent / "benchmarks" / "results"
SHOWN = ("lrp_guided", "warm start alone", "gamed later", "gamed")  # over the epochs
LEFT_OUT = ("rrr, warm start", "isnet, warm start", "shuffled in the loss alone")  # epochs of it
LABELLED_LEFT = {"shuffled masks", "gamed"}  # where names would meet
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#777777"


def behaviour() -> None:
    """What relevance shows against what the network does, one point a recipe."""
    rows = pd.read_csv(RESULTS / "guidance_study.csv")
    rows = rows[rows["block"].isin(["confirm", "baselines", "gamed"])]
    rows = rows[~rows["recipe"].isin(LEFT_OUT)]
    clean = rows[(rows["recipe"] == "clean")]["as_trained"].mean()
    marked = rows[rows["shortcut"] == "corner_marker"]
    points = marked.groupby("recipe", sort=False)[["inside", "swapped"]].mean()
    figure, axes = plt.subplots(figsize=(7.2, 4.6), dpi=110, layout="constrained")
    axes.axhspan(-0.03, 0.65, xmin=0.5, color=ORANGE, alpha=0.12, lw=0)
    axes.text(
        0.985, 0.56, "relevance in the tumour,\ndecision by the marker", ha="right", color=ORANGE
    )
    axes.axhline(clean, color=GREY, lw=1, ls="--")
    axes.text(
        0.005, clean + 0.012, f"trained without a marker: {clean:.2f}", color=GREY, fontsize=9
    )
    crowded = points[(points["inside"] > 0.8) & (points["swapped"] > 0.8)]
    stacked = crowded.sort_values("inside").index.tolist()
    for name, (inside, swapped) in points.iterrows():
        own = name == "lrp_guided"
        colour = BLUE if own else "#222222"
        axes.plot(inside, swapped, "o", color=colour, ms=9 if own else 6)
        left, lower = name in LABELLED_LEFT or inside > 0.9, abs(swapped - clean) < 0.01
        place = (inside - 0.012 if left else inside + 0.012, swapped - (0.035 if lower else 0.012))
        side = "right" if left else "left"
        if name == "warm start alone":
            place, side = (inside, swapped - 0.055), "center"
        if name in stacked:  # labels one below the other, each with a line to its point
            place, side = ((0.8, 0.83 - 0.06 * stacked.index(name)), "right")
        axes.annotate(
            str(name),
            (inside, swapped),
            xytext=place,
            ha=side,
            fontsize=9,
            color=colour,
            arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.7, "relpos": (1, 0.5)}
            if name in stacked
            else None,
        )
    axes.set(xlim=(0, 1), ylim=(-0.03, 1.0))
    axes.set_xlabel("share of relevance in the tumour, test images")
    axes.set_ylabel("accuracy with the marker swapped")
    figure.savefig(HERE / "guidance_behaviour.png")


def epochs() -> None:
    """How recipes go on after the first good epochs."""
    rows = pd.read_csv(RESULTS / "guidance_epochs.csv")
    rows = rows[rows["shortcut"] == "corner_marker"]
    rows = rows[rows["block"].isin(["confirm", "baselines", "gamed"])]
    shown = {
        "accuracy": (ORANGE, "--", "accuracy, marker in place"),
        "exchanged_accuracy": (ORANGE, "-", "accuracy on exchanged backgrounds"),
        "absolute_relevance_mass": (BLUE, "-", "relevance in the tumour"),
    }
    recipes = [name for name in SHOWN if name in set(rows["recipe"])]
    figure, grid = plt.subplots(
        1,
        len(recipes),
        figsize=(3.3 * len(recipes), 3.2),
        dpi=110,
        sharey=True,
        layout="constrained",
    )
    for axes, recipe in zip(grid, recipes, strict=True):
        part = rows[rows["recipe"] == recipe]
        for column, (colour, line, label) in shown.items():
            mean = part.groupby("epoch")[column].mean()
            axes.plot(mean.index, mean, color=colour, ls=line, label=label)
        axes.set(
            title=f"{recipe}, {part['seed'].nunique()} cohorts", xlabel="epoch", ylim=(0, 1.02)
        )
    grid[0].set_ylabel("validation")
    grid[0].legend(loc="lower right", fontsize=8)
    figure.savefig(HERE / "guidance_epochs.png")


behaviour()
epochs()
