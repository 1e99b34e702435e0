"""Hydra's launchers and sweepers, for real; `make test-faults`."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT, Cli
from tests.integration.test_sweep import SMALL

pytestmark = pytest.mark.faults
KILLER = '''
import os, signal
from pathlib import Path
from pytorch_lightning import Callback

class Killer(Callback):
    """Kills the process of the job whose fuse is lit, once."""
    def __init__(self, lit, file):
        self.lit, self.file = lit, Path(file)
    def on_train_epoch_end(self, trainer, pl_module):
        if self.lit and self.file.exists():
            self.file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
'''


def needs(plugin: str) -> None:
    try:
        found = find_spec(f"hydra_plugins.hydra_{plugin}")
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"the plugin {plugin} is not installed")


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        ("joblib_launcher", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]),
        ("submitit_launcher", ["hydra/launcher=submitit_local"]),
        ("ray_launcher", ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"]),
    ],
)
def test_a_launcher_runs_a_sweep(plugin: str, words: list[str], cli: Cli, tmp_path: Path) -> None:
    needs(plugin)
    result = cli(
        "train", "-m", *SMALL, *words, "seed=0,1", f"hydra.sweep.dir={tmp_path}/sweep", timeout=1200
    )
    assert result.returncode == 0, result.stderr
    assert list(pd.read_csv(tmp_path / "sweep" / "sweep.csv")["state"]) == ["finished"] * 2
    assert "best run: " in result.stdout


def test_a_killed_process_does_not_end_the_sweep(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("joblib_launcher")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "fuse").touch()
    (tmp_path / "own_killer.py").write_text(KILLER)
    result = cli(
        "train",
        "-m",
        *SMALL,
        *("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        "+callbacks.killer._target_=own_killer.Killer",
        f"+callbacks.killer.file={tmp_path}/fuse",
        "+callbacks.killer.lit=true,false",
        f"hydra.sweep.dir={tmp_path}/sweep",
        timeout=1200,
    )
    assert result.returncode == 0, result.stderr
    assert list(pd.read_csv(tmp_path / "sweep" / "sweep.csv")["state"]) == ["finished"] * 2
    assert "a process of the sweep was killed" in result.stdout + result.stderr


def test_a_search_with_two_objectives_goes_on_in_its_study(cli: Cli, tmp_path: Path) -> None:
    needs("optuna_sweeper")
    words = ("+sweep=optuna", "hydra.sweeper.n_trials=2", f"hydra.sweep.dir={tmp_path}/sweep")
    result = cli("train", "-m", *SMALL, *words, timeout=1200)
    assert result.returncode == 0, result.stderr
    assert "Pareto front of validation/exchanged_auc, validation/absolute_rel" in result.stdout
    again = cli("train", "-m", *SMALL, *words, timeout=1200)
    assert again.returncode == 0, again.stderr
    table = pd.read_csv(tmp_path / "sweep" / "sweep.csv", dtype=str)
    assert list(table["job"]) == ["0", "1", "2_0", "2_1"]
    settings = set(table["setting"])
    assert len(settings) == 4  # the study knew what had been tried
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text())["searches"] is True


def test_a_stopped_sweep_goes_on(cli: Cli, tmp_path: Path, shared_cache: Path) -> None:
    needs("joblib_launcher")
    sweep = tmp_path / "sweep"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "glioma_xai.train", "-m", *SMALL, "trainer.max_epochs=15"),
            *("seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
            f"hydra.sweep.dir={sweep}",
        ],
        cwd=ROOT,
        env=os.environ | {"GLIOMA_XAI_CACHE": str(shared_cache), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    while not (sweep / "0" / "checkpoints" / "last.ckpt").is_file():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert f"-m resume={sweep}" in said
    assert json.loads((sweep / "0" / "status.json").read_text())["state"] != "finished"
    result = cli("train", "-m", f"resume={sweep}", timeout=1200)
    assert result.returncode == 0, result.stderr
    assert len(pd.read_csv(sweep / "0" / "metrics.csv")) == 15
