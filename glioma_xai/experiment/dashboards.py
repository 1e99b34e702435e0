"""The W&B workspace of a project as code: every run on the same axes, behaviour first."""

import json
from types import ModuleType
from typing import Any

from glioma_xai.errors import RunError

NAME = "glioma_xai"
_CONDITIONS = {
    "as_trained": "as trained",
    "exchanged_any": "on another patient's background",
    "removed": "with the shortcut removed",
    "swapped": "with the shortcut swapped",
}
_COLUMNS = (
    "summary:judgement",
    "summary:behaviour/largest_drop",
    "summary:test/auc",
    "summary:test/absolute_relevance_mass",
    "config:loss.guidance_weight",
    "summary:guided_plain_step_ratio",
)


def build_workspace(project: str, entity: str) -> Any:  # noqa: ANN401 - wandb_workspaces' own
    """The workspace for the runs of a project; nothing is sent.

    Args:
        project: W&B project.
        entity: W&B user or team.

    Raises:
        RunError: If wandb-workspaces is not installed.
    """
    ws, wr = _library()
    sections = [
        _section("Behaviour: does accuracy hold?", _behaviour(wr)),
        _section("Relevance: where does it look?", _relevance(wr)),
        _section("Losses", _losses(wr)),
        _section("Pictures", _pictures(wr)),
    ]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=20),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Metric("Group")], pinned_columns=list(_COLUMNS)
        ),
    )


def definition(project: str, entity: str) -> str:
    """The workspace as JSON, the same text every time.

    Args:
        project: W&B project.
        entity: W&B user or team; may be empty.
    """
    view = build_workspace(project, entity or "entity")._to_model()
    content = view.model_dump(mode="json", by_alias=True, exclude_none=True)
    if not entity:
        content["entity"] = ""
    return json.dumps(content, indent=2, sort_keys=True)


def save_workspace(project: str, entity: str) -> str:
    """Create the workspace in W&B and return its address.

    Args:
        project: W&B project.
        entity: W&B user or team; empty for the account's default.

    Raises:
        RunError: If W&B cannot be reached, or knows no account.
    """
    import wandb

    try:
        workspace = build_workspace(project, entity or str(wandb.Api().default_entity))
        workspace.save()
        return str(workspace.url)
    except RunError:
        raise
    except Exception as error:  # requests', wandb's and the GraphQL client's own kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"{project}: expected to reach W&B with an account, found {reason}. Run wandb login, "
            "or print the definition with --json."
        ) from error


def _library() -> tuple[ModuleType, ModuleType]:
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise RunError(
            "dashboard: expected the package wandb-workspaces, found none. Install the extra: pip "
            "install 'glioma-xai[dashboard]'."
        ) from error
    return ws, wr


def _section(name: str, panels: list[Any]) -> tuple[str, list[Any]]:
    """Panels in rows of two, with ids that do not change from call to call."""
    for position, panel in enumerate(panels):
        panel.layout.x, panel.layout.y = 12 * (position % 2), 8 * (position // 2)
        panel.layout.w, panel.layout.h = 12, 8
        panel._id = f"{name.split(':')[0].lower()}-{position}"
    return name, panels


def _lines(wr: ModuleType, title: str, *metrics: str) -> Any:  # noqa: ANN401
    """Metrics against the epoch; groups show their mean with the range over runs."""
    return wr.LinePlot(
        title=title,
        x="epoch",
        y=list(metrics),
        title_x="epoch",
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
    )


def _behaviour(wr: ModuleType) -> list[Any]:
    bars = [
        wr.BarPlot(
            title=f"Accuracy {words}, by patient (test)",
            metrics=[f"behaviour/{condition}"],
            range_x=(0, 1),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
        )
        for condition, words in _CONDITIONS.items()
    ]
    return [
        *bars,
        _lines(wr, "Validation accuracy as it is", "validation/accuracy"),
        _lines(wr, "Validation accuracy on exchanged backgrounds", "validation/exchanged_accuracy"),
        _lines(
            wr,
            "Validation accuracy on backgrounds of the other class",
            "validation/exchanged_other_class_accuracy",
        ),
    ]


def _relevance(wr: ModuleType) -> list[Any]:
    names = {
        "absolute_relevance_mass": "Share of |relevance| in the tumour",
        "relevance_mass_accuracy": "Share of positive relevance in the tumour",
        "focus_score": "Focus score",
        "pointing_game": "Pointing game",
    }
    against = wr.ScatterPlot(
        title="Says it looks at the tumour, and decides by it? (test)",
        x=wr.SummaryMetric("test/absolute_relevance_mass"),
        y=wr.SummaryMetric("behaviour/exchanged_other_class"),
        range_x=(0, 1),
        range_y=(0, 1),
    )
    lines = [_lines(wr, title, f"validation/{name}") for name, title in names.items()]
    return [*lines, against]


def _losses(wr: ModuleType) -> list[Any]:
    return [
        _lines(wr, "Classification loss", "train/loss_classification"),
        _lines(wr, "Guidance loss", "train/loss_guidance"),
        _lines(wr, "Total loss", "train/loss", "validation/loss"),
        _lines(wr, "Guidance weight", "train/guidance_weight"),
    ]


def _pictures(wr: ModuleType) -> list[Any]:
    titles = {
        "panels/validation": "Anatomy and relevance, by epoch (validation)",
        "layers/validation": "Masks to switch on: tumour, relevance for and against",
        "panels/test": "Right and wrong cases (test)",
    }
    return [
        wr.MediaBrowser(title=title, media_keys=[key], num_columns=2)
        for key, title in titles.items()
    ] + [wr.WeavePanelSummaryTable(table_name="predictions/patient")]
