"""What a run folder's config may name."""

import pytest
from omegaconf import OmegaConf

from glioma_xai.errors import ConfigError
from glioma_xai.experiment.trust import check_resolved, check_trust, names_in

OWN = {
    "seed": 3,
    "name": "plain, seed ${seed}",
    "paths": {"run": "${hydra:runtime.output_dir}", "cache": "${oc.env:GLIOMA_XAI_CACHE,.cache}"},
    "data": {"cache_dir": "${paths.cache}", "seed": "${seed}"},
    "scheduler": {
        "_target_": "torch.optim.lr_scheduler.CosineAnnealingLR",
        "T_max": "${data.seed}",
    },
}


def test_what_our_own_configs_call_is_let_through() -> None:
    config = OmegaConf.create(OWN)
    check_trust(config)
    config.paths.run = "here"
    check_resolved(config)


@pytest.mark.parametrize(
    ("value", "trusted"),
    [
        ("${oc.env:SECRET}", "SECRET"),
        ("a ${oc.env:SECRET,b} ${seed}", "SECRET"),
        ("${ oc.env : SECRET }", "SECRET"),
        ("${oc.env:GLIOMA_XAI_CACHE,[a,{b: ${oc.env:SECRET}}]}", "SECRET"),
        ("${oc.env:'GLIOMA_XAI_CACHE'}", "'GLIOMA_XAI_CACHE'"),
        ("${oc.decode:'[1,2]'}", "oc.decode"),
        ("${oc.select:seed}", "oc.select"),
        ("${hydra:runtime.cwd}", "hydra"),
        ("${mine:1}", "mine"),
        ("${oc.env:GLIOMA_XAI_CACHE,'${mine:1}'}", "mine"),
        ("${data.${mine:1}}", "mine"),
    ],
)
@pytest.mark.parametrize("key", ["name", "paths.root", "data.root", "model.layers"])
def test_other_calls_are_refused_wherever_they_are_unless_trusted(
    key: str, value: str, trusted: str
) -> None:
    config = OmegaConf.create(OWN)
    OmegaConf.update(config, key, [value] if key == "model.layers" else value, force_add=True)
    with pytest.raises(ConfigError) as error:
        check_trust(config)
    assert str(error.value).startswith(f"{key}.0: " if key == "model.layers" else f"{key}: ")
    assert str(error.value).endswith(f"If the run folder is yours, add trust=[{trusted}].")
    check_trust(config, trust=[trusted])
    assert trusted in names_in(config)


def test_the_name_of_a_resolver_is_written_out() -> None:
    config = OmegaConf.create({"kind": "env", "name": "${oc.${kind}:SECRET}"})
    with pytest.raises(ConfigError, match=r"name: .*whose name is itself an interpolation"):
        check_trust(config, trust=["oc.${kind}", "SECRET"])


@pytest.mark.parametrize(
    "value", [r"\${oc.env:SECRET}", "${a}${b}", "${a}${b}${c}", "${oc.env:GLIOMA_XAI_X,'${a}{b}'}"]
)
def test_no_interpolation_is_put_together(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    config = OmegaConf.create({"a": "$", "b": "{oc.env:", "c": "SECRET}", "name": value})
    trust = ["GLIOMA_XAI_X"]
    check_trust(config, trust=trust)  # nothing to be seen yet
    with pytest.raises(ConfigError, match=r"name: .*only when it is put together") as error:
        check_resolved(config, trust=trust)
    assert "hunter2" not in str(error.value)


def test_a_class_that_resolution_makes_is_refused() -> None:
    shell = "{_target_: torch.utils.collect_env.run, command: x}"
    config = OmegaConf.create({"scheduler": f"${{oc.create:{shell}}}"})
    check_trust(config, trust=["oc.create"])
    with pytest.raises(
        ConfigError, match=r"^scheduler\._target_: .*found torch\.utils\.collect_env"
    ):
        check_resolved(config, trust=["oc.create"])
    check_resolved(config, trust=["oc.create", "torch"])


@pytest.mark.parametrize("value", ["${nowhere}", "${name}"])
def test_a_reference_that_leads_nowhere_is_a_mistake(value: str) -> None:
    with pytest.raises(ConfigError):
        check_resolved(OmegaConf.create({"name": value}))


def test_a_config_of_one_s_own_passes_with_what_it_names() -> None:
    config = OmegaConf.create(
        {
            "model": {"_target_": "my_package.Net"},
            "data": {"root": "${oc.env:BRATS}", "manifest": "${mine:x}"},
        }
    )
    assert names_in(config) == ["BRATS", "mine", "my_package"]
    check_trust(config, trust=names_in(config))
