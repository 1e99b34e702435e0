"""Parts of a sweep: the rule, the pooled folds, the memory of a step, one GPU a process."""

import fcntl
import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from glioma_xai.errors import CohortError, ConfigError, RunError
from glioma_xai.experiment.sweep_devices import (
    Place,
    refuse_device_numbers,
    take_device,
    visible_devices,
)
from glioma_xai.experiment.sweep_folds import pool_folds, write_pooled
from glioma_xai.experiment.sweep_memory import Need, TensorMemory, memory_warning
from glioma_xai.experiment.sweep_objectives import objectives_of
from glioma_xai.experiment.sweep_plan import Job, Sweep, plan_sweep, read_sweep
from glioma_xai.experiment.sweep_problems import Problems
from glioma_xai.experiment.sweep_results import Outcome, best_run

JOBS = tuple(Job(number, (f"seed={number}",), f"seed={number}") for number in range(5))
SWEEP = Sweep(Path("sweep"), ("-m", "seed=range(5)"), JOBS, monitor="validation/auc")


def outcome(name: str, label: str, score: float) -> Outcome:
    return Outcome(name, Path("sweep") / name, label, "finished", score=score)


def test_the_best_run_is_of_the_best_setting_not_the_luckiest() -> None:
    finished = [
        outcome("0", "a=1 seed=0", 0.99),  # mean .745
        outcome("1", "a=1 seed=1", 0.50),
        outcome("2", "a=2 seed=0", 0.80),  # mean .81
        outcome("3", "a=2 seed=1", 0.82),
    ]
    said = best_run(finished, SWEEP)
    assert said.startswith("best run: sweep/3 (a=2 seed=1), mean 0.810 of 2 runs")
    lowest = best_run(finished, replace(SWEEP, mode="min"))
    assert lowest.startswith("best run: sweep/1 (a=1 seed=1)")
    assert "Test data plays no part" in said
    assert "no best run is named" in best_run(finished, replace(SWEEP, monitor=None))


def test_a_run_without_a_score_is_never_the_best() -> None:
    finished = [outcome("0", "a=1", float("nan")), outcome("1", "a=2", 0.1)]
    assert best_run(finished, SWEEP).startswith("best run: sweep/1")


def test_a_sweep_is_read_back(tmp_path: Path) -> None:
    sweep = replace(SWEEP, folder=tmp_path, launcher="joblib", at_a_time=2)
    sweep.write()
    assert read_sweep(tmp_path) == sweep
    with pytest.raises(RunError, match=r"expected a sweep's folder with sweep\.json"):
        read_sweep(tmp_path / "nowhere")
    whole = (tmp_path / "sweep.json").read_text()
    for broken in (whole[:-9], whole.replace('"number": 0', '"number": "../0"'), "[]"):
        (tmp_path / "sweep.json").write_text(broken)
        with pytest.raises(RunError, match="expected a list of jobs as a sweep writes it"):
            read_sweep(tmp_path)


def test_the_folder_of_a_job_is_its_number() -> None:
    with pytest.raises(ConfigError, match="A job's folder is its number"):
        plan_sweep("train", ["-m", "seed=0,1", "hydra.sweep.subdir=mine"])


def test_the_same_problem_of_several_jobs_is_one_line() -> None:
    problems = Problems(SWEEP)
    for number in range(4):
        problems.add(number, CohortError("no such cohort"))
    problems.add(2, ValueError("odd\nmore"))
    with pytest.raises(RunError) as found:
        problems.raise_all()
    lines = str(found.value).splitlines()[1:]
    assert lines == [
        "  job 0 (seed=0), 1 (seed=1), 2 (seed=2) and 1 more: no such cohort",
        "  job 2 (seed=2): ValueError: odd",
    ]
    problems.add(0, ConfigError("a setting"))
    with pytest.raises(ConfigError, match="found 3 problems"):
        problems.raise_all()


def predictions(folder: Path, patients: list[str]) -> Path:
    folder.mkdir()
    rows = [
        {"level": level, "split": split, "patient": patient, "subject": patient, "label": 1}
        for patient in patients
        for level, split in (("slice", "test"), ("patient", "test"), ("slice", "validation"))
    ]
    pd.DataFrame(rows).assign(site="").to_csv(folder / "predictions.csv", index=False)
    return folder


def test_pooled_folds_hold_every_patient_once(tmp_path: Path) -> None:
    first = predictions(tmp_path / "0", ["007", "P2"])
    second = predictions(tmp_path / "1", ["P3"])
    assert list(pool_folds([first, second])["patient"]) == ["007", "P2", "P3"]
    again = predictions(tmp_path / "2", ["P2"])
    with pytest.raises(CohortError, match="found 1 in several, such as P2"):
        pool_folds([first, second, again])


def test_folds_that_were_drawn_twice_are_pooled_apart(tmp_path: Path) -> None:
    runs = []
    for number, (draw, patients) in enumerate([(0, "AB"), (0, "CD"), (1, "AC"), (1, "BD")]):
        folder = tmp_path / str(number)
        (folder / ".hydra").mkdir(parents=True)
        data = {"folds": 2, "fold_split": "test", "split_seed": draw, "classes": ["L", "H"]}
        config = OmegaConf.create({"seed": 0, "bootstrap": 20, "data": data})
        OmegaConf.save(config, folder / ".hydra" / "config.yaml")
        table = pd.DataFrame(
            {"patient": list(patients), "subject": list(patients), "label": [0, 1]}
        )
        table = table.assign(level="slice", split="test", site="", probability_L=0.6)
        table = table.assign(probability_H=0.4, prediction=0, absolute_relevance_mass=0.5)
        table.to_csv(folder / "predictions.csv", index=False)
        runs.append((folder, "loss=a"))
    said = write_pooled(tmp_path, runs)
    pooled = json.loads((tmp_path / "folds.json").read_text())
    assert list(pooled) == [f"loss=a seed=0 data.split_seed={draw}" for draw in (0, 1)]
    assert [found["patients"] for found in pooled.values()] == [4, 4]
    assert said.count("2 of 2 folds, 4 patients, each once") == 2


def test_objectives_are_of_the_epoch_that_was_chosen(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"selected_epoch": 1}))
    rows = "epoch,validation/auc,validation/loss\n0,.9,.1\n1,.7,.2\n2,.8,\n"
    (tmp_path / "metrics.csv").write_text(rows)
    config = OmegaConf.create({"objectives": ["validation/loss", "validation/auc"]})
    assert objectives_of(config, 0.5, tmp_path) == (0.2, 0.7)
    assert objectives_of(OmegaConf.create({"objectives": None}), 0.5, tmp_path) == 0.5
    assert objectives_of(OmegaConf.create({}), float("nan"), tmp_path) is None
    config.objectives = ["validation/acu"]
    with pytest.raises(RunError, match="found validation/acu"):
        objectives_of(config, 0.5, tmp_path)


def test_memory_follows_every_tensor_from_birth_to_end() -> None:
    weight = torch.ones(1000, requires_grad=True)  # not made inside: not counted
    with TensorMemory() as held:
        kept = torch.zeros(1000)  # 4000 bytes
        view = kept[:10]  # none of its own
        passing = kept + weight  # 4000
        assert held.now == 8000
        del passing
        assert held.now == 4000
        product = (kept * weight).exp()  # product and exp: exp keeps its result alone
        assert held.now == 8000
        product.sum().backward()
    assert held.most >= 4000 + 4000 + 4000 + 4000  # kept, exp, and two gradients at a time
    assert view.numel() == 10


def test_too_large_a_step_is_said() -> None:
    assert memory_warning(Need(0, 1000), SWEEP, "cpu") is None
    said = memory_warning(Need(10**15, 0), replace(SWEEP, at_a_time=2), "cpu")
    assert said is not None
    assert said.startswith("memory: 2 jobs at a time, each with one step of about 1000000.0 GB")
    assert memory_warning(Need(10**15, 0), replace(SWEEP, launcher="submitit_slurm"), "cpu") is None


def test_jobs_that_share_a_gpu_need_its_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    card = SimpleNamespace(total_memory=10**10)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    need = Need(0, 3 * 10**9)  # and 1.5 GB for the program: two fit, three do not
    four = replace(SWEEP, launcher="joblib", at_a_time=4)
    assert memory_warning(need, four, "gpu") is None
    said = memory_warning(need, replace(four, at_a_time=5), "gpu")
    assert said is not None
    assert said.startswith("memory: 3 jobs at a time, each with one step of about 3.0 GB")
    assert memory_warning(need, replace(SWEEP, launcher="ray", at_a_time=8), "gpu") is None


GPU = OmegaConf.create({"trainer": {"accelerator": "gpu", "devices": 1}})


def _take(place: Place, hidden: bool, barrier, devices) -> None:
    if hidden:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # as submitit's local executor does
    devices.put(take_device(GPU, place))
    assert take_device(GPU, place) is None  # its next job keeps the device
    devices.put(os.environ["CUDA_VISIBLE_DEVICES"])
    barrier.wait(60)


@pytest.mark.parametrize(
    ("launcher", "visible"),
    [("joblib", "4,GPU-5"), ("submitit_local", "4,GPU-5"), ("submitit_local", None)],
)
def test_every_process_has_a_gpu_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str, visible: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    place = Place(tmp_path, launcher, visible_devices())
    hidden = launcher == "submitit_local"
    context = multiprocessing.get_context("fork")
    barrier, devices = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=_take, args=(place, hidden, barrier, devices)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    found = [devices.get(timeout=60) for _ in range(4)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    names = ["0", "1"] if visible is None else ["4", "GPU-5"]
    assert sorted(found) == sorted(names * 2)


def test_the_only_gpu_is_given_back_to_a_job_from_which_submitit_hides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glioma_xai.experiment.sweep_devices._held", [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert take_device(GPU, Place(tmp_path, "submitit_local", ("7",))) == "7"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"


def test_there_is_nothing_to_choose_without_gpus_or_with_other_launchers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    on_cpu = OmegaConf.create({"trainer": {"accelerator": "cpu"}})
    for launcher in ("joblib", "submitit_local"):
        assert take_device(on_cpu, Place(tmp_path, launcher, visible_devices())) is None
    for launcher in ("submitit_slurm", "ray", "basic"):
        assert take_device(GPU, Place(tmp_path, launcher, visible_devices())) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_devices() == ()
    for launcher in ("joblib", "submitit_local"):
        assert take_device(GPU, Place(tmp_path, launcher, visible_devices())) is None
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_is_not_named_where_each_job_sees_one(tmp_path: Path) -> None:
    second = OmegaConf.create({"trainer": {"accelerator": "gpu", "devices": [1]}})
    first = OmegaConf.create({"trainer": {"accelerator": "gpu", "devices": [0]}})
    said = r"trainer\.devices: expected the number 1 with hydra/launcher=joblib, .*found \[1\]"
    with pytest.raises(ConfigError, match=said):
        refuse_device_numbers([first, second], "joblib")
    with pytest.raises(ConfigError, match="hydra/launcher=submitit_local"):
        take_device(second, Place(tmp_path, "submitit_local", ("0", "1")))
    refuse_device_numbers([first, GPU], "joblib")
    refuse_device_numbers([second], "basic")
    refuse_device_numbers([second], "submitit_slurm")


def test_a_job_of_submitit_takes_a_gpu_of_those_that_the_sweep_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitit = pytest.importorskip("submitit")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-5")
    place = Place(tmp_path, "submitit_local", visible_devices())
    executor = submitit.LocalExecutor(folder=tmp_path / "jobs")
    (tmp_path / ".devices").mkdir()
    with (tmp_path / ".devices" / "0.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)  # another job has the first
        jobs = [
            executor.submit(os.getenv, "CUDA_VISIBLE_DEVICES"),
            executor.submit(take_device, GPU, place),
        ]
        assert [job.result() for job in jobs] == ["", "GPU-5"]
