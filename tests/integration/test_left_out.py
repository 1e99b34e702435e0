"""What data.on_error=skip leaves out is told wherever somebody reads results."""

import json
from pathlib import Path

from glioma_xai.data.cohort import PhantomSettings, write_cohort
from tests.conftest import Cli


def test_what_is_left_out_is_told_everywhere(cli: Cli, tmp_path: Path) -> None:
    root = write_cohort(tmp_path / "cohort", PhantomSettings(subjects=20, slices=2, spacing_mm=4.0))
    broken = sorted(root.glob("HGG/*/*_t2.nii.gz"))[0]
    broken.write_bytes(broken.read_bytes()[:1000])
    unmarked = sorted(root.glob("LGG/*/*_seg.nii.gz"))[0]
    unmarked.unlink()
    settings = ["+experiment=smoke", "data=brats", f"data.root={root}", "data.test_share=0.3"]
    settings += [
        f"paths.root={tmp_path / 'runs'}",
        "trainer.max_epochs=1",
        "loss.warm_start_epochs=0",
        "data.slice_count=1",
    ]
    refused = cli("train", *settings)
    assert refused.returncode == 1
    assert f"{broken.name}: expected a readable NIfTI file" in refused.stderr
    result = cli("train", *settings, "data.on_error=skip")
    assert result.returncode == 0, result.stderr
    (folder,) = [p.parent for p in tmp_path.rglob("summary.json")]
    texts = [
        "\n".join(json.loads((folder / "status.json").read_text())["left_out"]),
        "\n".join(json.loads((folder / "summary.json").read_text())["left_out"]),
        result.stdout,
    ]
    for text in texts:
        assert f"{broken.name}: expected a readable NIfTI file, found a damaged" in text
    (noticed,) = json.loads((folder / "status.json").read_text())["warnings"]
    assert "Warnings about the cohort: 1. The first: " in noticed
    assert unmarked.parent.name in noticed
    assert noticed in result.stdout + result.stderr
    page = (folder / "report.html").read_text()
    assert broken.name in page
    assert "a damaged or truncated one" in page
    patient = broken.parent.name.rpartition("_")[0]
    assert patient not in (folder / "splits.csv").read_text()
