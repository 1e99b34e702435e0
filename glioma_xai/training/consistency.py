"""Equal logits on other backgrounds: a second pass that differs in nothing but the background."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from glioma_xai.attribution.guards import statistics_at_rest
from glioma_xai.losses import Term, guided_samples
from glioma_xai.losses.consistency import consistency
from glioma_xai.records import Batch
from glioma_xai.training.sampling import Key, exchanged
from glioma_xai.training.terms import joined


def consistency_term(
    model: nn.Module,
    batch: Batch,
    *,
    key: Key,
    logits: Tensor | None = None,
    state: Tensor | None = None,
) -> Term:
    """Difference of the logits between images and their copies on other backgrounds.

    Both passes drop the same units out: nothing but the background differs.

    Args:
        model: The network; its BatchNorm statistics stay as they are.
        batch: B samples.
        key: Of the random numbers.
        logits: Of the images, (B, classes), if they are known.
        state: Of the device's random numbers before the pass that gave them.
    """
    images = batch["image"]
    with statistics_at_rest(model):
        if logits is None or state is None:
            state = random_state(images.device)
            logits = model(images)
        with _replayed(state, images.device):
            other = model(exchanged(batch, key=key))
    mask = batch["lesion_mask"]
    return joined(consistency(logits, other, mask), guided_samples(mask))


def random_state(device: torch.device) -> Tensor:
    """State of a device's random numbers, of which dropout takes its own."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


@contextmanager
def _replayed(state: Tensor, device: torch.device) -> Iterator[None]:
    """Draw the numbers again that followed a state; afterwards all goes on as before."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if on_cuda else []):
        if on_cuda:
            torch.cuda.set_rng_state(state, device)
        else:
            torch.set_rng_state(state)
        yield
