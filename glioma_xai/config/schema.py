"""What a config of ``train`` may hold; nodes with ``_target_`` take their callable's arguments."""

import typing
from dataclasses import MISSING, dataclass, fields

import pydantic
from omegaconf import DictConfig, OmegaConf

from glioma_xai.attribution import Target
from glioma_xai.attribution.composites import FirstLayer
from glioma_xai.losses.objective import Weighting

Node = dict[str, object]


@dataclass
class AttributionConfig:
    """Which relevance is computed, for which output. Options left null keep the rule's default."""

    composite: str = "epsilon_plus"
    target: Target = "label"
    layer: str | list[str] | None = None
    first_layer: FirstLayer | None = None
    epsilon: float | None = None
    stabilizer: float | None = None
    relative_epsilon: bool | None = None
    gamma: float | None = None
    gamma_decreasing: bool | None = None
    alpha: float | None = None
    low: float | None = None
    high: float | None = None
    rules: dict[str, str] | None = None


@dataclass
class LossConfig:
    """Classification loss + guidance_weight x schedule x guidance loss."""

    guidance: Node | None = None
    guidance_weight: float = 0.0
    schedule: Node | None = None
    combine: typing.Literal["sum", "convex"] = "sum"
    weighting: Weighting = "fixed"
    balance_every: int = 1
    probe: typing.Literal["image", "scaled", "mixed", "noise"] = "image"
    perturbation: typing.Literal["none", "random", "worst"] = "none"
    perturbation_radius: float = 0.1
    warm_start_epochs: int = 0
    warm_start_limit: int = 0
    warm_start: typing.Literal["exchange", "masked", "plain"] = "exchange"
    warm_start_on: typing.Literal["all", "guided"] = "guided"
    exchange_share: float = 0.0
    consistency_weight: float = 0.0
    guided_share: float = 1.0
    guided_batch: int | None = None
    every_n_steps: int = 1
    shuffled_masks: bool = False


@dataclass
class PathsConfig:
    """Folders: of all runs, of this run, of prepared data."""

    root: str = "runs"
    run: str = "runs/run"
    cache: str = ".cache"


@dataclass
class TrainConfig:
    """What `train` composes. Nodes with `_target_` take that callable's own arguments."""

    data: Node
    model: Node
    optimizer: Node
    trainer: Node
    attribution: AttributionConfig
    loss: LossConfig
    paths: PathsConfig
    callbacks: dict[str, Node | None]
    scheduler: Node | None = None
    logger: dict[str, Node | None] | None = None
    name: str = "plain"
    seed: typing.Annotated[int, pydantic.Field(ge=0, le=2**32 - 1)] = 0
    deterministic: bool = False
    class_weights: typing.Literal["none", "balanced"] = "none"
    replace_activations: bool = False
    overlays: int = 6
    bootstrap: int = 1000
    objectives: list[str] | None = None


def with_defaults(config: DictConfig) -> DictConfig:
    """A run's config with the keys that came after it, at values that change nothing."""
    parts = {"attribution": AttributionConfig, "loss": LossConfig, "paths": PathsConfig}
    known = {field.name: field.default for field in fields(TrainConfig) if field.default != MISSING}
    for name, schema in parts.items():
        known[name] = {field.name: field.default for field in fields(schema)}
    merged = OmegaConf.merge(known, config)
    assert isinstance(merged, DictConfig)
    return merged
