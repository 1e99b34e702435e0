"""A guided step of two processes with unequal shares and masks has the gradients of one."""

from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from glioma_xai import losses
from glioma_xai.losses.objective import Objective
from glioma_xai.models.networks import SmallCNN
from glioma_xai.records import Batch
from glioma_xai.training.guidance import Attribution, Guidance, ProbeName
from glioma_xai.training.module import GuidedClassifier
from glioma_xai.training.terms import share_of_all
from tests.unit.training.test_module import SHAPE, make_batch

SHARES = (slice(0, 4), slice(4, 7))  # the first has 4 samples and 1 mask, the second 3 and 2
PRECISIONS = [False, True]
PROBED: tuple[ProbeName, ...] = ("image", "noise")  # in the pass that classifies, and in its own


def batch(*without_mask: int) -> Batch:
    whole = make_batch(7)
    whole["lesion_mask"][list(without_mask)] = torch.nan
    return whole


UNEQUAL, LONE = (0, 1, 2, 4), (0, 1, 2, 3, 4)  # in the second the first process has no mask


def part_of(whole: Batch, rows: slice) -> Batch:
    return cast("Batch", {name: values[rows] for name, values in whole.items()})


class Step(nn.Module):
    """What Lightning does: the training step as a forward pass, so that DDP can wrap it."""

    def __init__(self, probe: ProbeName = "noise") -> None:
        super().__init__()
        torch.manual_seed(0)
        network = SmallCNN(
            input_shape=SHAPE, classes=2, channels=(4, 4, 4, 4), hidden=8, batch_norm=False
        )
        self.module = GuidedClassifier(
            network,
            attribution=Attribution("epsilon_plus", "contrastive", options={"epsilon": 0.01}),
            guidance=Guidance(loss=partial(losses.energy), probe=probe),
            objective=Objective(guidance_weight=3.0, class_weights=[0.5, 1.5]),
            optimizer=partial(torch.optim.Adam, lr=1e-3),
        ).eval()  # no dropout

    def forward(self, part: Any) -> Tensor:
        share = share_of_all(torch.tensor(float(len(part["label"]))))
        return self.module.losses(part, step=1, total_steps=2, share=share).total


def gradients(step: nn.Module, part: Batch, *, bf16: bool, scale: float = 1.0) -> list[Tensor]:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = step(part)
    (loss * scale).backward()
    return [p.grad.clone() for p in step.parameters() if p.grad is not None]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    part = part_of(batch(*UNEQUAL), SHARES[rank])
    found = {
        str(bf16): gradients(DistributedDataParallel(Step()), part, bf16=bf16)
        for bf16 in PRECISIONS
    }
    part = part_of(batch(*LONE), SHARES[rank])
    for probe in PROBED:
        step, passes = Step(probe), []
        step.module.model[0].register_forward_hook(lambda *_, seen=passes: seen.append(1.0))
        found[probe] = gradients(DistributedDataParallel(step), part, bf16=False)
        found[f"{probe} passes"] = [torch.tensor(passes)]
    torch.save(found, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Tensor]]]:
    folder = tmp_path_factory.mktemp("two")
    multiprocessing.spawn(work, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("bf16", PRECISIONS)
def test_two_processes_have_the_gradients_of_one(
    of_two: list[dict[str, list[Tensor]]], bf16: bool
) -> None:
    expected = gradients(Step(), batch(*UNEQUAL), bf16=bf16)
    assert sum(float(g.norm()) for g in expected) > 0.1
    for found in of_two:
        for a, b in zip(found[str(bf16)], expected, strict=True):
            # bfloat16 rounds the classification, whose sums over samples are taken in parts
            torch.testing.assert_close(
                a, b, rtol=0.05 if bf16 else 1e-4, atol=5e-3 if bf16 else 1e-6
            )


@pytest.mark.parametrize("probe", PROBED)
def test_a_process_without_masks_takes_the_same_passes(
    of_two: list[dict[str, list[Tensor]]], probe: ProbeName
) -> None:
    expected = gradients(Step(probe), batch(*LONE), bf16=False)
    first, second = of_two
    assert len(first[f"{probe} passes"][0]) == len(second[f"{probe} passes"][0]) > 0
    for found in of_two:
        for a, b in zip(found[probe], expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_accumulated_steps_have_the_gradients_of_one() -> None:
    whole, step = make_batch(6), Step()
    expected = gradients(Step(), whole, bf16=False)
    for rows in (slice(0, 3), slice(3, 6)):
        found = gradients(step, part_of(whole, rows), bf16=False, scale=0.5)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
