"""A run folder from elsewhere runs no code and reads no secret; reports show neither."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from glioma_xai.config import compose_config
from glioma_xai.experiment.public import public_settings
from glioma_xai.experiment.sweep_plan import Job, Sweep
from tests.conftest import Cli

COMMANDS = [
    ("train", "resume={folder}"),
    ("evaluate", "run={folder}"),
    ("explain", "run={folder} subject=x"),
]


def write_run(folder: Path, key: str, value: object) -> Path:
    config = compose_config("train", ["+experiment=smoke"])
    OmegaConf.update(config, key, value, force_add=True)
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    return folder


def call(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
    arguments: str,
) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", [script, *arguments.split()])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"glioma_xai.{script}").main()
    return int(end.value.code or 0), "".join(capsys.readouterr())


@pytest.mark.parametrize(("script", "arguments"), COMMANDS)
@pytest.mark.parametrize("key", ["model._target_", "scheduler", "data.augmentation", "callbacks.x"])
def test_a_shell_in_a_config_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    script: str,
    arguments: str,
    key: str,
) -> None:
    command = "torch.utils.collect_env.run"
    call_of_it = {"_target_": command, "command": f"touch {tmp_path}/done"}
    value = command if key.endswith("_target_") else call_of_it
    folder = write_run(tmp_path / "run", key, value)
    code, errors = call(monkeypatch, capsys, script, arguments.format(folder=folder))
    assert code == 2
    assert "found torch.utils.collect_env.run. If the run folder is yours, add trust=" in errors
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize(("script", "arguments"), COMMANDS)
def test_a_secret_in_a_config_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    script: str,
    arguments: str,
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    folder = write_run(tmp_path / "run", "name", "run of ${oc.env:SECRET}")
    code, errors = call(monkeypatch, capsys, script, arguments.format(folder=folder))
    assert code == 2
    assert "name: expected a value, found the environment variable SECRET" in errors
    assert "hunter2" not in errors


SHELL = "{_target_:torch.utils.collect_env.run,command:'touch DONE'}"
PIECES = ["$", "{oc.env:SECRET}", "env"]  # harmless one by one
CALL, VARIABLE, LATER = "a call of the resolver", "the environment variable", "is put together"
HIDDEN = [
    ("loss.schedule", f"${{oc.create:{SHELL}}}", f"{CALL} oc.create"),
    ("loss.schedule", f'${{oc.decode:"{SHELL}"}}', f"{CALL} oc.decode"),
    ("name", "${oc.select:seed}", f"{CALL} oc.select"),
    ("paths.root", "${oc.env:SECRET}", f"paths.root: expected a value, found {VARIABLE} SECRET"),
    ("data.on_error", "${oc.env:GLIOMA_XAI_CACHE,${oc.env:SECRET}}", f"{VARIABLE} SECRET"),
    ("data.on_error", "${oc.${data.exclude[2]}:SECRET}", "whose name is itself an interpolation"),
    ("data.on_error", r"\${oc.env:SECRET}", LATER),
    ("data.on_error", "${data.exclude[0]}${data.exclude[1]}", LATER),
]


@pytest.mark.parametrize(("key", "value", "found"), HIDDEN)
def test_what_an_interpolation_makes_is_refused_too(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    smoke_run: Path,
    shared_cache: Path,
    tmp_path: Path,
    key: str,
    value: str,
    found: str,
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    monkeypatch.setenv("GLIOMA_XAI_CACHE", str(shared_cache))
    folder = tmp_path / "run"
    shutil.copytree(smoke_run, folder)
    config = OmegaConf.load(folder / ".hydra" / "config.yaml")
    config.data.exclude = PIECES
    if key == "paths.root":
        config.name = "${paths.root}"  # which reports show
    OmegaConf.update(config, key, value.replace("DONE", f"{tmp_path}/done"))
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    words = f"run={folder} output={tmp_path}/out"
    code, printed = call(monkeypatch, capsys, "evaluate", words)
    assert code == 2
    assert found in printed
    assert "hunter2" not in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_sweep_from_elsewhere_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch, cli: Cli, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    write_run(tmp_path / "0", "trainer.devices", ["${oc.env:SECRET}"])
    Sweep(tmp_path, ("-m", "seed=0"), (Job(0, ("seed=0",), ""),)).write()
    result = cli("train", "-m", f"resume={tmp_path}", "hydra/launcher=joblib")
    assert result.returncode == 1
    assert "found the environment variable SECRET" in result.stdout + result.stderr
    assert "hunter2" not in result.stdout + result.stderr


def test_a_class_of_one_s_own_is_trusted_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = write_run(tmp_path / "run", "optimizer._target_", "my_package.Optimizer")
    for script, arguments in COMMANDS:
        words = f"{arguments.format(folder=folder)} trust=[my_package]"
        code, errors = call(monkeypatch, capsys, script, words)
        assert code == 2
        assert "Install my_package" in errors  # trusted, and looked for


@pytest.mark.parametrize(
    "word",
    [
        "hydra.launcher.setup=[touch done]",
        "+hydra.launcher._target_=torch.utils.collect_env.run",
        "hydra/launcher=${oc.env:SECRET}",
    ],
)
def test_a_sweep_from_elsewhere_brings_no_launcher_that_runs_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, word: str
) -> None:
    job = Job(0, ("seed=0",), "")
    Sweep(tmp_path, ("-m", "seed=0", "hydra/launcher=submitit_local", word), (job,)).write()
    monkeypatch.setattr(sys, "argv", ["train", "-m", f"resume={tmp_path}"])
    with pytest.raises(SystemExit) as end:
        importlib.import_module("glioma_xai.train").main()
    assert end.value.code == 2
    assert f"found {word}. If the sweep is yours" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]


def test_settings_are_public_without_folders_and_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    config = compose_config(
        "train",
        ["data.root=/home/alice/brats", "paths.root=/home/alice/runs", "name=${oc.env:SECRET}"],
    )
    text = str(public_settings(config))
    assert "alice" not in text
    assert "hunter2" not in text
    assert "brats" in text


def test_a_report_tells_neither_folder_nor_user(smoke_run: Path, shared_cache: Path) -> None:
    page = (smoke_run / "report.html").read_text()
    for folder in (smoke_run.parent, shared_cache.parent, Path.home(), Path.cwd()):
        assert str(folder) not in page


def test_a_report_of_evaluate_tells_neither(
    smoke_run: Path, shared_cache: Path, cli: Cli, tmp_path: Path
) -> None:
    result = cli("evaluate", f"run={smoke_run}", f"output={tmp_path}/out")
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    for folder in (smoke_run.parent, shared_cache.parent, tmp_path, Path.home(), Path.cwd()):
        assert str(folder) not in page
