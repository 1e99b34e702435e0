"""What is checked before the first job: each job by itself, though jobs share what they can."""

from pathlib import Path

import pytest

from glioma_xai.config import conf_dir
from glioma_xai.experiment.sweep_check import Checked, check_sweep
from glioma_xai.experiment.sweep_plan import plan_sweep

FEW_MASKS = (
    *("+experiment=smoke", "data.phantom.subjects=20", "data.slice_count=1"),
    *("data.mask_share=0.5", "loss.guided_share=0.5", "loss.warm_start_epochs=0"),
)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch, shared_cache: Path, tmp_path: Path):
    monkeypatch.setenv("GLIOMA_XAI_CACHE", str(shared_cache))

    def check(*words: str) -> Checked:
        folder = f"hydra.sweep.dir={tmp_path}/sweep"
        return check_sweep("train", plan_sweep("train", ["-m", *FEW_MASKS, *words, folder]))

    return check


def test_jobs_that_share_a_cohort_have_batches_of_their_own(checked) -> None:
    both = checked("data.batch_size=4,8")  # 2 and 4 guided samples a step
    assert both.networks == 2
    assert both.cohorts == 1
    small = checked("data.batch_size=4")
    assert both.need.step == pytest.approx(2 * small.need.step, rel=0.01)  # of twice the samples


EXPERIMENTS = sorted(path.stem for path in conf_dir().glob("experiment/*.yaml"))
EXPERIMENTS.remove("lrp_guided_3d")  # minutes to prepare


def test_every_experiment_can_be_swept(
    monkeypatch: pytest.MonkeyPatch, shared_cache: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("GLIOMA_XAI_CACHE", str(shared_cache))
    words = [
        f"+experiment={','.join(EXPERIMENTS)}",
        *("data.phantom.subjects=20", "data.slice_count=1", "data.mask_share=1"),
        *("data.spacing_mm=4.0", "data.spatial_size=[48,56]", "data.batch_size=8"),
        f"hydra.sweep.dir={tmp_path}/sweep",
    ]
    found = check_sweep("train", plan_sweep("train", ["-m", *words]))
    assert len(found.configs) == len(EXPERIMENTS)
