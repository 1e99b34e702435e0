"""What is added to the classification loss: one value a sample, and which samples count."""

import numpy as np
import torch
from torch import Tensor, nn

from glioma_xai.losses import Term, guided_samples, mask_on_grid
from glioma_xai.losses.backgrounds import draw_donors
from glioma_xai.records import Batch
from glioma_xai.training.guidance import PROBES, Attribution, Guidance
from glioma_xai.training.perturbation import perturbed
from glioma_xai.training.sampling import Key, Supply

_DRAWN_KEY, _MASKS_KEY = 2**31 - 4, 2**31 - 5
_DRAWN_BATCHES, _DRAWN_SIZE = 8, 32


def share_of_all(count: Tensor) -> Tensor:
    """The mean of a count over the processes of a run.

    Gradients of processes are averaged, so a mean over the joined batch divides by the joined count
    over the number of processes.

    Args:
        count: Of this process, float; changed in place.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count /= torch.distributed.get_world_size()
    return count


def somewhere(found: Tensor) -> bool:
    """Whether something is found in any process of a run.

    What decides about a pass through the network must be the same in all processes, since
    synchronised BatchNorm waits for every one of them.

    Args:
        found: Of this process, bool.
    """
    return bool(share_of_all(found.any().float()) > 0)


def joined(values: Tensor, counted: Tensor) -> Term:
    """A term whose mean is over the samples that count in all processes.

    Args:
        values: (N,).
        counted: (N,) bool.
    """
    return Term(values, counted, share_of_all(counted.sum().float()))


def shares_a_pass(attribution: Attribution, guidance: Guidance, batch: Batch) -> bool:
    """Whether relevance can come out of the forward pass that classifies the batch.

    It can unless it is read at other or changed inputs, of part of the batch, at several layers, or
    under autocast.
    """
    return (
        guidance.probe == "image"
        and guidance.perturbation == "none"
        and len(attribution.places) == 1
        and guidance.guided_share >= 1
        and not torch.is_autocast_enabled(batch["image"].device.type)
        and somewhere(guided_samples(batch["lesion_mask"]))
    )


def guided_pass(
    model: nn.Module, attribution: Attribution, guidance: Guidance, batch: Batch, *, key: Key
) -> tuple[Tensor, Term]:
    """Logits (B, classes) and guidance, out of one forward pass; see :func:`guidance_term`."""
    (place,) = attribution.places
    logits, relevance = place.relevance(
        model,
        batch["image"],
        labels=batch["label"],
        create_graph=True,
        generator=torch_generator(batch, key=key),
    )
    values = guidance_values(guidance, relevance, loss_mask(guidance, batch, key=key))
    return logits, joined(values, guided_samples(batch["lesion_mask"]))


def loss_mask(guidance: Guidance, batch: Batch, *, key: Key) -> Tensor:
    """Masks that the guidance loss gets, (B, 1, *spatial): the batch's, or those of others.

    Where nobody else in the batch has a mask a sample keeps its own.
    """
    mask = batch["lesion_mask"]
    if not guidance.shuffled_masks:
        return mask
    names = batch["patient_id"]
    return mask[draw_donors(mask, index=batch["index"], key=(*key, _MASKS_KEY), patient_id=names)]


def guidance_term(
    model: nn.Module,
    attribution: Attribution,
    guidance: Guidance,
    batch: Batch,
    *,
    key: Key,
) -> Term:
    """Guidance loss of a batch's samples with masks, read at the probe's inputs.

    A process whose batch has none reads one that does not count, if another process has some.

    Args:
        model: The network; its BatchNorm statistics stay as they are.
        attribution: How relevance is computed.
        guidance: Loss, probe and share of the samples.
        batch: B samples.
        key: Of the random numbers.
    """
    mask = batch["lesion_mask"]
    guided = guided_samples(mask)
    chosen = guided.nonzero()[:, 0][: guidance.guided_count(len(mask))]
    counted = torch.zeros_like(guided).index_fill(0, chosen, True)
    values = torch.zeros(len(mask), device=mask.device)
    if somewhere(guided):
        chosen = chosen if len(chosen) else chosen.new_zeros(1)
        judged_by = loss_mask(guidance, batch, key=key)
        probe = PROBES[guidance.probe](
            batch["image"], mask, index=batch["index"], key=key, patient_id=batch["patient_id"]
        )

        def values_at(images: Tensor) -> Tensor:
            return guidance_at_places(
                model,
                attribution,
                guidance,
                images,
                batch["label"][chosen],
                judged_by[chosen],
                generator=torch_generator(batch, key=key),
            )

        inputs = perturbed(
            probe[chosen],
            values_at,
            perturbation=guidance.perturbation,
            radius=guidance.perturbation_radius,
            index=batch["index"][chosen],
            key=key,
        )
        found = values_at(inputs)
        values = values.to(found).index_copy(0, chosen, found)
    return joined(values, counted)


def guidance_at_places(
    model: nn.Module,
    attribution: Attribution,
    guidance: Guidance,
    images: Tensor,
    labels: Tensor,
    lesion_mask: Tensor,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Guidance loss (B,), the mean over the layers at which relevance is read."""
    values = []
    for place in attribution.places:
        _, relevance = place.relevance(
            model,
            images,
            labels=labels,
            create_graph=True,
            generator=generator,
            update_statistics=False,
        )
        values.append(guidance_values(guidance, relevance, lesion_mask))
    return torch.stack(values).mean(dim=0)


def guidance_values(guidance: Guidance, relevance: Tensor, lesion_mask: Tensor) -> Tensor:
    """Guidance loss of a batch's maps, on the mask in the maps' resolution.

    Args:
        guidance: Whose loss.
        relevance: (B, C, *spatial), or (B, classes, C, *spatial) with target ``all``.
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).

    Returns:
        (B,), the mean over the classes' maps.
    """
    assert guidance.loss is not None
    every_class = relevance.ndim == lesion_mask.ndim + 1
    mask = mask_on_grid(lesion_mask, relevance.shape[3 if every_class else 2 :])
    if not every_class:
        return guidance.loss(relevance, mask)
    return torch.stack([guidance.loss(r, mask) for r in relevance.unbind(dim=1)]).mean(dim=0)


def relevance_totals(
    model: nn.Module, attribution: Attribution, batch: Batch, *, key: Key
) -> Tensor:
    """Sum of |relevance| of each map of a batch, (N,); for a loss that needs its natural range."""
    totals = []
    for place in attribution.places:
        _, relevance = place.relevance(
            model,
            batch["image"],
            labels=batch["label"],
            generator=torch_generator(batch, key=key),
            update_statistics=False,
        )
        maps = relevance if relevance.ndim == batch["image"].ndim else relevance.flatten(0, 1)
        totals.append(maps.detach().abs().flatten(1).sum(dim=1))
    return torch.cat(totals)


def drawn_totals(
    model: nn.Module, attribution: Attribution, supply: Supply, *, device: torch.device
) -> Tensor:
    """Sum of |relevance| of maps of training samples with masks, the same ones every time, (N,)."""
    totals = []
    for part in range(_DRAWN_BATCHES):
        key = (supply.seed, _DRAWN_KEY, part)
        drawn = supply.take(_DRAWN_SIZE, key=key, device=device)
        totals.append(relevance_totals(model, attribution, drawn, key=key))
    return torch.cat(totals)


def torch_generator(batch: Batch, *, key: Key) -> torch.Generator:
    """Random numbers of a step, a function of key and samples; for random targets."""
    numbers = np.random.SeedSequence([*key, *batch["index"].tolist()]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(numbers[0] >> 1))
