import pytest
import torch
from torch import distributed, multiprocessing, nn

from glioma_xai.losses.weighting import balancing_factor

NORMS = ((3.0, 1.0), (5.0, 0.0))  # classification and guidance, process by process


def balance(rank: int, path: str) -> None:
    """Process ``rank``: the factor of two losses with known gradient norms, saved to a file."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{path}/store", rank=rank, world_size=2
    )
    parameter = nn.Parameter(torch.ones(()))
    classification, guidance = (norm * parameter for norm in NORMS[rank])
    torch.save(balancing_factor(classification, guidance, [parameter]), f"{path}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_use_one_factor_even_if_one_has_no_guided_sample(tmp_path):
    multiprocessing.spawn(balance, args=(str(tmp_path),), nprocs=2)
    factors = [torch.load(tmp_path / f"{rank}.pt").item() for rank in (0, 1)]
    assert factors == pytest.approx([8.0, 8.0])
