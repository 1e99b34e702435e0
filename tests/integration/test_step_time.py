"""How the time of a step grows with volume and batch, on CUDA; `make test-gpu` prints it."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from pytorch_lightning.utilities import move_data_to_device

from glioma_xai import losses
from glioma_xai.experiment.timing import step_seconds
from glioma_xai.losses.objective import Objective
from glioma_xai.models.networks import resnet
from glioma_xai.records import Batch
from glioma_xai.training.guidance import Attribution, Guidance
from glioma_xai.training.module import GuidedClassifier

VOLUMES = [(2, 32), (2, 48), (2, 64), (2, 96)]  # samples, voxels along an edge
BATCHES = [(2, 48), (4, 48), (8, 48), (16, 48)]
MOST_GROWTH = 1.5  # of the time a voxel from one size to the next: 1 is linear, less is better
MOST_RATIO = 5.0  # guided against plain at the largest: a plain pass, and four of relevance


def make_batch(size: int, edge: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(size, 1, edge, edge, edge)
    mask[..., edge // 4 : edge // 2, edge // 4 : edge // 2, edge // 4 : edge // 2] = 1
    names = [f"p{i}" for i in range(size)]
    return {
        "image": torch.randn(size, 4, edge, edge, edge, generator=generator),
        "lesion_mask": mask,
        "brain_mask": torch.ones_like(mask),
        "label": torch.arange(size) % 2,
        "index": torch.arange(size),
        "slice_index": torch.zeros(size, dtype=torch.int64),
        "patient_id": names,
        "subject_id": names,
        "site": [""] * size,
    }


def make_module(edge: int) -> GuidedClassifier:
    """The network and the guidance of the experiment lrp_guided_3d."""
    torch.manual_seed(0)
    return GuidedClassifier(
        resnet(
            input_shape=(4, edge, edge, edge),
            classes=2,
            depth=10,
            channels=(16, 32, 64, 128),
            first_kernel=3,
        ),
        attribution=Attribution(
            "epsilon", "contrastive", options={"epsilon": 0.01, "first_layer": "flat"}
        ),
        guidance=Guidance(loss=partial(losses.energy, sign="absolute"), probe="mixed"),
        objective=Objective(guidance_weight=3.0),
        optimizer=partial(torch.optim.Adam, lr=1e-3),
    )


def measure(device: str, sizes: list[tuple[int, int]]) -> list[tuple[float, float]]:
    """Seconds of a plain and of a guided step at each size; they are printed."""
    found = []
    for size, edge in sizes:
        module = make_module(edge).to(device).train()
        batch = move_data_to_device(make_batch(size, edge), torch.device(device))
        plain, guided = step_seconds(module, batch)
        print(
            f"{size:>3} x {edge}^3: plain {1e3 * plain:8.1f} ms, guided {1e3 * guided:8.1f} ms, "
            f"ratio {guided / plain:.2f}, {1e9 * guided / (size * edge**3):.1f} ns a voxel"
        )
        found.append((plain, guided))
    return found


def require_bounds(sizes: list[tuple[int, int]], seconds: list[tuple[float, float]]) -> None:
    a_voxel = [
        guided / (size * edge**3) for (size, edge), (_, guided) in zip(sizes, seconds, strict=True)
    ]
    for smaller, larger in pairwise(a_voxel):
        assert larger <= MOST_GROWTH * smaller
    plain, guided = seconds[-1]
    assert 1 < guided / plain <= MOST_RATIO


def test_the_bounds_can_be_missed() -> None:
    sizes = [(1, 10), (1, 20)]  # eight times the voxels
    require_bounds(sizes, [(1.0, 2.0), (8.0, 16.0)])
    with pytest.raises(AssertionError):
        require_bounds(sizes, [(1.0, 2.0), (16.0, 32.0)])  # twice the time a voxel
    with pytest.raises(AssertionError):
        require_bounds(sizes, [(1.0, 2.0), (8.0, 41.0)])
    with pytest.raises(AssertionError):
        require_bounds(sizes, [(1.0, 1.0), (8.0, 8.0)])  # no guidance was measured


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("sizes", [VOLUMES, BATCHES], ids=["volume", "batch"])
def test_a_step_takes_no_more_than_its_voxels(sizes: list[tuple[int, int]]) -> None:
    require_bounds(sizes, measure("cuda", sizes))
