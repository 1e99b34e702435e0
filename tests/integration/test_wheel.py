"""The wheel carries the configs and templates: installed elsewhere, run from another folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_an_installed_wheel_runs_from_another_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "glioma_xai/conf/train.yaml" in names
    assert "glioma_xai/visualization/templates/run.html.j2" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "notebooks/"))]
    site = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(site),
    ]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = os.environ | {"PYTHONPATH": str(site)}
    where = [sys.executable, "-c", "import glioma_xai.config as c; print(c.conf_dir())"]
    found = subprocess.run(
        where, cwd=elsewhere, env=environment, check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == str(site / "glioma_xai" / "conf")
    command = ["glioma_xai.phantom", "output=cohort", "subjects=2", "progress=false"]
    subprocess.run([sys.executable, "-m", *command], cwd=elsewhere, env=environment, check=True)
    assert len(list((elsewhere / "cohort").glob("*GG/*/*_seg.nii.gz"))) == 2
    compose = [sys.executable, "-m", "glioma_xai.train", "--cfg", "job", "+experiment=lrp_guided"]
    shown = subprocess.run(
        compose, cwd=elsewhere, env=environment, check=True, capture_output=True, text=True
    )
    assert "guidance_weight: 3.0" in shown.stdout
