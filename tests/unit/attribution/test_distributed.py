"""Two processes give the gradients of one, and so does gradient accumulation."""

from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from glioma_xai.attribution import build_composite, compute_relevance
from glioma_xai.attribution.batchnorm import Affine
from tests.unit.attribution import nets

LABELS = torch.tensor([0, 2, 1, 1])


def guided_loss(model: nn.Module, plain: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    composite = build_composite("epsilon_plus_flat", plain, input_shape=images.shape[1:])
    logits, relevance = compute_relevance(
        model, images, composite, labels=labels, target="contrastive", create_graph=True
    )
    energy = relevance[..., :8].abs().flatten(1).sum(1) / relevance.abs().flatten(1).sum(1)
    return nn.functional.cross_entropy(logits, labels) + energy.mean()


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters()]


def train_on_half(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    plain = nets.plain()
    model = DistributedDataParallel(plain)
    half = slice(2 * rank, 2 * rank + 2)
    images = nets.images("plain", batch=4)
    for _ in range(2):  # a second step finds the reducer ready again
        model.zero_grad()
        guided_loss(model, plain, images[half], LABELS[half]).backward()

    # A synchronised BatchNorm's forward pass needs CUDA; its statistics do not.
    values = images[half].clone().requires_grad_()
    scale, shift = Affine(nn.SyncBatchNorm(2).double(), values).scale_and_shift()
    (scale.square().sum() + shift.sum()).backward()
    torch.save(
        {"gradients": gradients(model), "scale": scale.detach(), "values": values.grad},
        Path(folder) / f"{rank}.pt",
    )
    distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    multiprocessing.spawn(train_on_half, args=(str(tmp_path),), nprocs=2)
    model, images = nets.plain(), nets.images("plain", batch=4)
    guided_loss(model, model, images, LABELS).backward()
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for result in results:
        for found, expected in zip(result["gradients"], gradients(model), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)

    values = images.clone().requires_grad_()
    scale, shift = Affine(nn.BatchNorm2d(2).double(), values).scale_and_shift()
    (2 * (scale.square().sum() + shift.sum())).backward()  # both processes' losses
    torch.testing.assert_close(results[0]["scale"], scale.detach())
    joined = torch.cat([result["values"] for result in results])
    torch.testing.assert_close(joined, values.grad)


def test_accumulated_gradients_equal_one_large_batch() -> None:
    images = nets.images("plain", batch=4)
    whole, parts = nets.plain(), nets.plain()
    guided_loss(whole, whole, images, LABELS).backward()
    for half in (slice(0, 2), slice(2, 4)):
        (guided_loss(parts, parts, images[half], LABELS[half]) / 2).backward()
    for found, expected in zip(gradients(parts), gradients(whole), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
