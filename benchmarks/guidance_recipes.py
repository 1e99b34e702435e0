"""The recipes of the guidance study, block by block."""

from collections.abc import Iterator, Sequence

from benchmarks.guidance_runs import SEEDS, Recipe, Run

FIRST_SEEDS = (101, 102, 103)  # on which the fixed warm start was seen to fail

SMALL = ("data.phantom.subjects=480", "data.test_share=0.4", "data.validation_share=0.12")
LARGE = (
    "data.phantom.subjects=1200",
    "data.test_share=0.2",
    "data.validation_share=0.08",
    "data.batch_size=64",
)


def _guided(*more: str) -> tuple[str, ...]:
    return ("+experiment=lrp_guided", *more)


def _few(share: float, *more: str) -> tuple[str, ...]:
    few = (f"data.mask_share={share}", "loss.guided_batch=32")
    return ("+experiment=lrp_guided_few_masks", *few, *more)


def _alike(share: float, weight: float) -> tuple[str, ...]:
    few = (f"data.mask_share={share}", "loss.guided_batch=32", "loss.warm_start_on=guided")
    return ("+experiment=consistency", *few, f"loss.consistency_weight={weight}")


def _both(share: float, weight: float, consistency: float) -> tuple[str, ...]:
    guided = f"loss.guidance_weight={weight}"
    return _few(share, guided, f"loss.consistency_weight={consistency}")


def _exchange(share: float) -> tuple[str, ...]:
    return ("+experiment=exchange", f"data.mask_share={share}", "loss.guided_batch=32")


def _masked_alone(share: float) -> tuple[str, ...]:
    return (*_exchange(share), "loss.warm_start_on=guided", "loss.warm_start_epochs=20")


def _rrr(weight: float) -> tuple[str, ...]:
    return ("+experiment=rrr", f"loss.guidance_weight={weight:.0f}")


def _isnet(share: float, decay: float) -> tuple[str, ...]:
    rank = f"loss.guidance.decay={decay}"
    return ("+experiment=isnet", f"loss.guidance_weight={share}", rank)


def _three_ways(*more: str) -> tuple[tuple[str, tuple[str, ...], float], ...]:
    return (
        ("plain", (*PLAIN, *more), 0.7),
        ("lrp_guided", _guided(*more), 1.5),
        ("exchange", (*EXCHANGE, *more), 0.8),
    )


KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("annotation", ()),
    ("head_tilt", ()),
    ("missing_sequence", ("data.modalities=[t1,t1ce,flair]",)),  # FLAIR in the place of T1
)
RRR_WEIGHTS = (3e2, 3e3, 3e4, 3e5, 3e6, 3e7, 3e8)
ISNETS = (
    (0.7, 0.996),
    (0.9, 0.996),
    (0.97, 0.996),
    (0.7, 0.98),
    (0.9, 0.98),
    (0.95, 0.98),
    (0.9, 0.95),
    (0.9, 0.9),
)
PLAIN = ("+experiment=baseline",)
CLEAN = (*PLAIN, "callbacks.best.monitor=validation/balanced_accuracy")  # what is reported
RISING = "loss.schedule.share=0.5"  # of the training; the recipe has the full weight at once
ON_IMAGE = ("loss.probe=image",)
WARM_START = ("loss.warm_start=exchange", "loss.warm_start_epochs=3", "loss.warm_start_limit=10")
FROM_SCRATCH = ("loss.warm_start_epochs=0", "loss.warm_start_limit=0")
GAMED = (*ON_IMAGE, "attribution.first_layer=null", "loss.guidance_weight=1")
GAMED += ("callbacks.best.monitor=validation/auc",)
DRIFTING = (*ON_IMAGE, "attribution.first_layer=null", "loss.guidance_weight=10")
EXCHANGE = ("+experiment=exchange",)
BOTH = ("+experiment=lrp_guided_consistency",)
BOXES, TOO_WIDE = "data.annotation.shape=box", "data.annotation.dilation_mm=8"
STRENGTH_90 = "++data.phantom.shortcut_strength=0.9"
RESNET = ("model=resnet10", "+model.channels=[32,64,128,256]")
THREE = SEEDS[:3]

FIXED = _guided("loss.warm_start_limit=0")
BLOCKS: dict[str, tuple[tuple[str, ...], tuple[Recipe, ...]]] = {
    # the default recipe as it was found, on patients that it was not found on
    "confirm": (
        SMALL,
        (
            Recipe("clean", CLEAN, minutes=0.7, shortcut="none"),
            Recipe("plain", PLAIN, minutes=0.7),
            Recipe("lrp_guided", _guided()),
            Recipe("lrp_guided", _guided(), shortcut="bright_spot"),
            Recipe("plain", PLAIN, THREE, minutes=0.7, shortcut="bright_spot"),
        ),
    ),
    # the recipe before: a warm start of three epochs, whatever has been learnt by then
    "first_round": (
        SMALL,
        (
            Recipe("clean", PLAIN, FIRST_SEEDS, minutes=0.7, shortcut="none"),
            Recipe("plain", PLAIN, FIRST_SEEDS, minutes=0.7),
            Recipe("lrp_guided", FIXED, FIRST_SEEDS),
            Recipe("lrp_guided", FIXED, FIRST_SEEDS, shortcut="bright_spot"),
            Recipe("plain", PLAIN, FIRST_SEEDS[:2], minutes=0.7, shortcut="bright_spot"),
        ),
    ),
    # stripes of 7 mm, which pixels of 4 mm do not show
    "texture": (
        (*SMALL, "data.spacing_mm=2.0", "data.spatial_size=[96,112]", "data.slice_count=2"),
        (
            Recipe("clean", CLEAN, minutes=2, shortcut="none"),
            Recipe("plain", PLAIN, THREE, minutes=2, shortcut="texture"),
            Recipe("lrp_guided", _guided(), minutes=4, shortcut="texture"),
        ),
    ),
    # masks for 10 % (86) and 3 % (26) of 864 training patients, labels for all
    "few_masks": (
        LARGE,
        (
            Recipe("guided 10 %, weight 10", _few(0.1, "loss.guidance_weight=10"), minutes=3),
            Recipe("guided 3 %, weight 30", _few(0.03, "loss.guidance_weight=30"), minutes=3),
        ),
    ),
    "few_masks_others": (
        LARGE,
        (
            Recipe("clean", CLEAN, minutes=1.5, shortcut="none"),
            Recipe("consistency 3 %, weight 100", _alike(0.03, 100), THREE, minutes=2),
            Recipe("exchange 3 %", _exchange(0.03), THREE, minutes=1.5),
            Recipe("consistency 10 %, weight 30", _alike(0.1, 30), THREE, minutes=2),
            Recipe("exchange 10 %", _exchange(0.1), THREE, minutes=1.5),
            Recipe("masked alone 10 %", _masked_alone(0.1), THREE, minutes=1.5),
            Recipe("masked alone 3 %", _masked_alone(0.03), THREE, minutes=1.5),
        ),
    ),
    # masks for 25 % (216) and 1 % (9); the weight goes on as one over the share
    "few_masks_more": (
        LARGE,
        (
            Recipe("guided 1 %, weight 100", _few(0.01, "loss.guidance_weight=100"), THREE, 3),
            Recipe("masked alone 1 %", _masked_alone(0.01), THREE, minutes=1.5),
            Recipe("consistency 1 %, weight 300", _alike(0.01, 300), THREE, minutes=2),
            Recipe("guided 25 %, weight 4", _few(0.25, "loss.guidance_weight=4"), THREE, 3),
        ),
    ),
    # relevance and equal logits together; the weights were chosen on validation data of cohort 101
    "few_masks_both": (
        LARGE,
        (
            *(
                Recipe(f"both 1 %, weights {g} and 300", _both(0.01, g, 300), (101,), 4)
                for g in (10, 30)
            ),
        ),
    ),
    # what a reviewer asks for
    "baselines": (
        SMALL,
        (
            Recipe("exchange", EXCHANGE, minutes=0.8),
            Recipe("consistency", ("+experiment=consistency",), minutes=1),
            Recipe("masked input", ("+experiment=masked_input",), minutes=0.7),
            Recipe("warm start alone", _guided("loss.guidance_weight=0"), minutes=0.8),
            Recipe("lrp_guided_paper", ("+experiment=lrp_guided_paper",)),
            Recipe("rrr", ("+experiment=rrr",), minutes=3),
            Recipe("isnet", ("+experiment=isnet",), minutes=5),
            Recipe("rrr, warm start", ("+experiment=rrr", *WARM_START), THREE, minutes=2),
            Recipe("isnet, warm start", ("+experiment=isnet", *WARM_START), THREE, minutes=3),
            Recipe("shuffled masks", ("+experiment=random_mask_control",)),
            Recipe("shuffled in the loss alone", ("+experiment=shuffled_mask_control",), THREE),
            Recipe("guided and consistent", BOTH),
        ),
    ),
    # the weights of RRR and ISNet: chosen by exchanged validation images of a cohort of its own
    "tuning": (
        SMALL,
        (
            *(Recipe(f"rrr, weight {w:.0e}", _rrr(w), FIRST_SEEDS[:1]) for w in RRR_WEIGHTS),
            *(Recipe(f"isnet, P {p}, d {d}", _isnet(p, d), FIRST_SEEDS[:1]) for p, d in ISNETS),
        ),
    ),
    # masks drawn in a hurry, and shortcuts that are wrong now and then
    "conditions": (
        SMALL,
        (
            Recipe("boxes", _guided(BOXES), THREE),
            Recipe("exchange, boxes", (*EXCHANGE, BOXES), THREE, minutes=0.8),
            Recipe("masks 8 mm too wide", _guided(TOO_WIDE), THREE),
            Recipe("exchange, masks 8 mm too wide", (*EXCHANGE, TOO_WIDE), THREE, minutes=0.8),
            Recipe("plain, marker right in 90 %", (*PLAIN, STRENGTH_90), THREE, minutes=0.7),
            Recipe("guided, marker right in 90 %", _guided(STRENGTH_90), THREE),
            Recipe("exchange, marker right in 90 %", (*EXCHANGE, STRENGTH_90), THREE, minutes=0.8),
        ),
    ),
    # a marker that is wrong in a fifth of the patients, or in one of a hundred
    "correlations": (
        SMALL,
        tuple(
            Recipe(f"{name}, marker right in {share:.0%}".replace("%", " %"), words, THREE, minutes)
            for share in (0.8, 0.99)
            for name, words, minutes in _three_ways(f"++data.phantom.shortcut_strength={share}")
        ),
    ),
    # cues of other kinds; head tilt and missing sequence change the tumour's own pixels
    "kinds": (
        SMALL,
        tuple(
            Recipe(name, words, THREE, minutes, shortcut)
            for shortcut, more in KINDS
            for name, words, minutes in _three_ways(*more)
        ),
    ),
    # a spot on the tumour's border, half of it inside the mask
    "margin": (
        SMALL,
        (
            Recipe("plain", PLAIN, THREE, minutes=0.7, shortcut="rim_spot"),
            Recipe("lrp_guided", _guided(), THREE, shortcut="rim_spot"),
            Recipe("exchange", EXCHANGE, THREE, 0.8, "rim_spot"),
        ),
    ),
    # known to be gamed: relevance on the image itself, epsilon rule in the first layer, weight 1,
    # and the epoch chosen as usual, by validation AUC
    "gamed": (
        SMALL,
        (
            Recipe("gamed", _guided(*GAMED, *FROM_SCRATCH), THREE),
            Recipe("gamed later", _guided(*GAMED, "loss.warm_start_epochs=1"), THREE),
            Recipe("drifting", _guided(*DRIFTING), THREE),
        ),
    ),
    # MONAI's ResNet10, half as wide
    "resnet": (
        SMALL,
        (
            Recipe("clean", (*CLEAN, *RESNET), minutes=2, shortcut="none"),
            Recipe("plain", (*PLAIN, *RESNET), minutes=2),
            Recipe("lrp_guided", _guided(*RESNET), minutes=4),
            Recipe("exchange", (*EXCHANGE, *RESNET), minutes=2),
            Recipe("lrp_guided, weight rises", _guided(RISING, *RESNET), THREE, minutes=4),
            Recipe("consistency", ("+experiment=consistency", *RESNET), minutes=2),
            Recipe("masked input", ("+experiment=masked_input", *RESNET), minutes=1.5),
            Recipe("warm start alone", _guided("loss.guidance_weight=0", *RESNET), minutes=1.5),
            Recipe("lrp_guided_paper", ("+experiment=lrp_guided_paper", *RESNET), minutes=4),
            Recipe("rrr", ("+experiment=rrr", *RESNET), minutes=4),
            Recipe("isnet", ("+experiment=isnet", *RESNET), minutes=6),
            Recipe("shuffled masks", ("+experiment=random_mask_control", *RESNET), minutes=4),
            Recipe("guided and consistent", (*BOTH, *RESNET), minutes=4),
        ),
    ),
    # one factor at a time around the recipe
    "factors": (
        SMALL,
        (
            Recipe("weight 1", _guided("loss.guidance_weight=1"), THREE),
            Recipe("target label", _guided("attribution.target=label"), THREE),
            Recipe("probe image", _guided(*ON_IMAGE), THREE),
            Recipe("epsilon in the first layer", _guided("attribution.first_layer=null"), THREE),
            Recipe("zplus", _guided("attribution=zplus"), THREE),
            Recipe("no warm start", _guided(*FROM_SCRATCH), THREE),
            Recipe("60 epochs", _guided("trainer.max_epochs=60"), THREE, minutes=4.5),
            Recipe(
                "w-square in the first layer", _guided("attribution.first_layer=wsquare"), THREE
            ),
            Recipe("z-box in the first layer", _guided("attribution.first_layer=zbox"), THREE),
            Recipe("epsilon_plus_flat", _guided("attribution=epsilon_plus_flat"), THREE),
            Recipe("gradient", _guided("attribution=gradient"), THREE),
            Recipe("weight 10", _guided("loss.guidance_weight=10"), THREE),
            Recipe("probe scaled", _guided("loss.probe=scaled"), THREE),
            Recipe("probe noise", _guided("loss.probe=noise"), THREE),
            Recipe("constant learning rate", _guided("scheduler=none"), THREE),
            Recipe("target random sign", _guided("attribution.target=random_sign"), THREE),
            Recipe("target all", _guided("attribution.target=all"), THREE),
            Recipe("target log-probability", _guided("attribution.target=log_probability"), THREE),
            Recipe("probe changed at random", _guided("loss.perturbation=random"), THREE),
            Recipe("probe changed the worst way", _guided("loss.perturbation=worst"), THREE, 2.5),
        ),
    ),
}


def runs_of(blocks: Sequence[str]) -> Iterator[Run]:
    """Every run of the blocks, seed by seed, so that an early stop leaves whole comparisons."""
    for block in blocks:
        cohort, recipes = BLOCKS[block]
        for seed in (*FIRST_SEEDS, *SEEDS):
            for recipe in recipes:
                if seed in recipe.seeds:
                    yield Run(block, recipe, seed, cohort)
