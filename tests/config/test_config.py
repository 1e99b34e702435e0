"""Every config composes and is checked; mistakes are named with the nearest right word."""

from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from glioma_xai.config import (
    check_config,
    choices,
    compose_config,
    conf_dir,
    nearest,
    with_defaults,
)
from glioma_xai.errors import ConfigError
from glioma_xai.experiment.instantiate import build_trainer
from glioma_xai.experiment.launch import split_arguments, value_of
from glioma_xai.experiment.sweep_plan import jobs_of, plan_sweep, stand_ins
from glioma_xai.experiment.trust import check_trust

GROUPS = [
    "data",
    "model",
    "attribution",
    "loss",
    "optimizer",
    "scheduler",
    "trainer",
    "callbacks",
    "logger",
    "paths",
]


def compose(*overrides: str) -> DictConfig:
    config = compose_config("train", list(overrides))
    config.paths.run = "runs/run"
    return config


@pytest.mark.parametrize(
    "override",
    [f"{group}={choice}" for group in GROUPS for choice in choices(group)]
    + [
        f"+{group}={choice}"
        for group in ("experiment", "sweep", "debug")
        for choice in choices(group)
    ],
)
def test_every_choice_composes_and_fits_its_schema(override: str) -> None:
    check_config(compose(override))


def test_groups_are_all_tested() -> None:
    folders = {path.name for path in conf_dir().iterdir() if path.is_dir()}
    assert folders == {*GROUPS, "experiment", "sweep", "debug", "hydra"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.shortcutt=none", r"data\.shortcutt: no such key\. Did you mean data\.shortcut\?"),
        (
            "los.guidance_weight=1",
            r"los\.guidance_weight: no such key\. Did you mean loss\.guidance",
        ),
        ("model=smal_cnn", r"model=smal_cnn: no such choice\. Did you mean small_cnn\?"),
        ("+experiment=lrp_guidet", r"Did you mean lrp_guided\?"),
        (
            "hydra/launcher=nowhere",
            r"hydra/launcher/nowhere: no such choice\. Known: basic, joblib",
        ),
        ("modle=small_cnn", r"modle: no such key\. Did you mean model\?"),
    ],
)
def test_a_misspelt_override_names_the_nearest(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "+model.dropuot=0.1",
            r"model\.dropuot: .*SmallCNN takes no such argument\. Did you mean dro",
        ),
        (
            "+loss.guidance_wieght=1",
            r"loss\.guidance_wieght: no such key\. Did you mean guidance_we",
        ),
        ("+sed=1", r"sed: no such key\. Did you mean seed\?"),
        ("data.batch_size=many", r"data\.batch_size: .*found 'many'"),
        ("trainer.max_epochs=few", r"trainer\.max_epochs: .*found 'few'"),
        ("loss.probe=mixt", r"loss\.probe: .*'mixed'.*found 'mixt'"),
        ("attribution.target=lable", r"attribution\.target: .*'label'.*found 'lable'"),
        (
            "attribution.composite=epsilon_pluss",
            r"no composite is called .*Did you mean epsilon_plus",
        ),
        ("loss.guidance_weight=1", r"loss\.guidance: expected a guidance loss"),
        ("loss.guidance_weight=-1", r"loss\.guidance_weight must be a finite .* got -1"),
        ("loss.guidance_weight=nan", r"loss\.guidance_weight must be a finite .* got nan"),
        ("loss.consistency_weight=-2", r"loss\.consistency_weight must be .*, got -2"),
        ("loss.weighting=clever", r"loss\.weighting: .*found 'clever'"),
        ("loss.warm_start=none", r"loss\.warm_start: .*found 'none'"),
        (
            "model._target_=my_package.Net",
            r"model\._target_: .*found my_package\.Net\. Install my_p",
        ),
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_built(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config(compose(override))


def test_a_user_s_own_config_folder_is_searched(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: torch.nn.Linear\nin_features: 3\n")
    config = compose_config("train", ["model=mine"], config_dirs=[str(tmp_path)])
    assert config.model.in_features == 3


def test_composing_leaves_hydra_clean() -> None:
    compose()
    assert not GlobalHydra.instance().is_initialized()


def test_nearest_lists_what_is_known_if_nothing_is_near() -> None:
    assert nearest("zzz", ["beta", "alpha"]) == "Known: alpha, beta."


def test_jobs_of_a_sweep_are_numbered_as_hydra_numbers_them() -> None:
    config = compose_config("train", ["+sweep=seeds"], hydra=True)
    jobs = jobs_of(["+sweep=seeds", "loss.guidance_weight=1,2", "hydra.verbose=true"], config)
    assert len(jobs) == 6
    assert jobs[0] == ["seed=0", "+sweep=seeds", "loss.guidance_weight=1"]
    assert jobs[1] == ["seed=0", "+sweep=seeds", "loss.guidance_weight=2"]


def test_sweeps_can_be_combined() -> None:
    sweep = plan_sweep("train", ["-m", "+sweep=[composite,seeds]", "seed=3,4"])
    assert len(sweep.jobs) == 4 * 2
    assert sweep.jobs[1].label == "attribution=epsilon seed=4"


def test_a_search_is_stood_for_by_its_choices_and_the_ends_of_its_intervals() -> None:
    words = ["model=small_cnn,resnet10", "optimizer.lr=tag(log,interval(0.001,0.1))", "seed=1"]
    jobs = stand_ins(words, compose_config("train", ["seed=1"], hydra=True))
    assert ["model=small_cnn", "optimizer.lr=0.001", "seed=1"] in jobs
    assert ["model=resnet10", "optimizer.lr=0.001", "seed=1"] in jobs
    assert ["model=small_cnn", "optimizer.lr=0.1", "seed=1"] in jobs
    assert len(jobs) == 3


def test_a_number_in_quotes_is_refused_and_a_builtin_cannot_be_looked_into() -> None:
    with pytest.raises(ConfigError, match=r"seed: expected a number, found the text '3'\. Drop"):
        check_config(compose("seed='3'"))
    with pytest.raises(ConfigError, match=r"model.dropout: expected a number, found the text"):
        check_config(compose("model.dropout='0.1'"))
    check_config(compose("scheduler._target_=builtins.dict", "scheduler=cosine"))


def test_training_without_an_end_is_refused(tmp_path: Path) -> None:
    config = compose_config("train", ["trainer.max_epochs=-1"])
    config.paths.run = str(tmp_path)
    with pytest.raises(ConfigError, match=r"trainer.max_epochs: expected a number.*found -1\. Set"):
        build_trainer(config, callbacks=[], loggers=[])
    config.trainer.max_epochs = 1
    build_trainer(config, callbacks=[], loggers=[])


def test_ids_are_read_as_they_are_written() -> None:
    overrides, folders, multirun = split_arguments(
        ["subject=2013_001", "--config-dir", "mine", "-m"]
    )
    assert value_of("subject", overrides) == "2013_001"
    assert (folders, multirun) == (["mine"], True)


def test_targets_from_a_run_folder_must_be_known_exactly() -> None:
    check_trust(compose())
    shell = OmegaConf.create({"model": {"_target_": "torch.utils.collect_env.run"}})
    with pytest.raises(ConfigError, match=r"found torch\.utils\.collect_env\.run.*trust=\[torch\]"):
        check_trust(shell)
    mine = OmegaConf.create({"model": {"_target_": "my_package.Net"}})
    check_trust(mine, trust=["my_package"])


def test_a_run_of_before_keeps_its_settings_and_gets_the_keys_that_came_later() -> None:
    words = ["+experiment=lrp_guided", "loss.guidance_weight=7", "paths.run=runs/before"]
    composed = compose_config("train", words)
    config = OmegaConf.create(OmegaConf.to_container(composed, resolve=False))
    for key in ("warm_start_on", "weighting", "guided_batch"):
        del config.loss[key]
    del config["replace_activations"]
    restored = with_defaults(config)
    check_config(restored)
    assert restored.loss.weighting == "fixed"
    assert restored.loss.guided_batch is None
    assert restored.loss.guidance_weight == 7
    assert restored.replace_activations is False
    assert restored.scheduler == config.scheduler
