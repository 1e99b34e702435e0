"""The table of exactness: rule set x network x mode, with stock Zennit's error beside ours."""

import hashlib
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from monai.networks.nets import DenseNet121, resnet10, resnet18, resnet50
from monai.networks.nets.resnet import ResNetBottleneck
from torch import Tensor, nn
from zennit import composites as stock
from zennit import rules, types
from zennit.core import Composite

import glioma_xai.attribution
from glioma_xai.attribution import COMPOSITES, build_composite, compute_relevance
from glioma_xai.models.networks import SmallCNN, vgg
from tests.unit.attribution import nets
from tests.unit.attribution.differences import compare, rough_error

SIZES = {2: (2, 32, 32), 3: (2, 16, 16, 16)}
PUBLISHED: dict[str, Callable[[int], nn.Module]] = {
    "SmallCNN": lambda dims: SmallCNN(input_shape=SIZES[dims], classes=3),
    "VGG": lambda dims: vgg(input_shape=SIZES[dims], classes=3),
    "DenseNet121": lambda dims: DenseNet121(dims, 2, 3),
    "ResNet10": lambda dims: resnet10(spatial_dims=dims, n_input_channels=2, num_classes=3),
    "ResNet18": lambda dims: resnet18(spatial_dims=dims, n_input_channels=2, num_classes=3),
    "ResNet50": lambda dims: resnet50(spatial_dims=dims, n_input_channels=2, num_classes=3),
}
RULE_SETS = ("epsilon", "epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1")
MODES = ("eval", "train")
OPTIONS = {"epsilon": 1e-2, "stabilizer": 1e-2}


@dataclass(frozen=True)
class Case:
    """One row to be measured.

    Args:
        network: Of ``nets.NETS`` or of ``PUBLISHED``.
        dims: 2 or 3.
        mode: eval or train.
        composite: Rule set.
        directions: Random directions; small networks get one within each tensor besides.
    """

    network: str
    dims: int
    mode: str
    composite: str
    directions: int

    @property
    def small(self) -> bool:
        return self.network in nets.NETS

    def model(self) -> nn.Module:
        made = nets.NETS[self.network]() if self.small else PUBLISHED[self.network](self.dims)
        model = nets.prepared(made).train(self.mode == "train")
        if self.network == "ResNet50" and self.dims == 3:  # a slope of 15,000 drowns in rounding
            for module in model.modules():
                if isinstance(module, ResNetBottleneck):  # as trained networks start: near identity
                    module.bn3.weight.data.mul_(0.25)
        return model

    def images(self, seed: int) -> Tensor:
        if self.small:
            return nets.images(self.network, seed=seed)
        batch = 4 if self.dims == 3 else 3
        if self.network == "DenseNet121":  # its last BatchNorms see one value a sample
            batch = 8
        shape = (2, 32, 32, 32) if self.network == "DenseNet121" and self.dims == 3 else None
        generator = torch.Generator().manual_seed(seed)
        size = (batch, *(shape or SIZES[self.dims]))
        return torch.randn(size, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Row:
    """What was measured; errors are relative to the slope by finite differences."""

    network: str
    dims: int
    parameters: int
    mode: str
    composite: str
    directions: int
    kinks: float
    worst: float
    median: float
    images: int
    stock: str
    seconds: float
    engine: str


def cases(kinds: tuple[str, ...] = ("small", "published")) -> Iterator[Case]:
    """Every row of the table, the quick ones first."""
    if "small" in kinds:
        for network, composite, mode in itertools.product(nets.NETS, COMPOSITES, MODES):
            yield Case(network, 3 if network.endswith("3d") else 2, mode, composite, 20)
    if "published" in kinds:
        for dims, network in itertools.product((2, 3), PUBLISHED):
            few = 4 if network.startswith(("ResNet", "DenseNet")) else 10
            if network == "DenseNet121" and dims == 3:
                few = 2  # seconds a pass
            for composite, mode in itertools.product(RULE_SETS, MODES):
                yield Case(network, dims, mode, composite, few)


def energy(relevance: Tensor) -> Tensor:
    """Share of absolute relevance outside the first rows, summed over the batch."""
    size = relevance.abs()
    return (1 - size[..., :4, :].flatten(1).sum(1) / size.flatten(1).sum(1)).sum()


def measure(case: Case, *, seeds: int = 12) -> Row:
    """Measure one row; images in which too many directions cross a kink are exchanged."""
    start, model = time.process_time(), case.model()
    labels = torch.tensor([0, 2, 1, 1, 2, 0, 1, 0])
    for seed in range(2, 2 + seeds):
        pixels = case.images(seed)
        composite = build_composite(case.composite, model, input_shape=pixels.shape[1:], **OPTIONS)
        loss = energy_loss(model, pixels, composite, labels[: len(pixels)])
        found = compare(model, loss, directions=case.directions, own_directions=case.small)
        if found.kinks <= 0.1 and math.isfinite(found.worst):  # an empty map has no energy
            break
    return Row(
        case.network,
        case.dims,
        sum(p.numel() for p in model.parameters()),
        case.mode,
        case.composite,
        found.directions,
        found.kinks,
        found.worst,
        found.typical,
        seed - 1,
        stock_error(case, model, pixels, labels[: len(pixels)]),
        time.process_time() - start,
        engine(),
    )


def energy_loss(
    model: nn.Module, pixels: Tensor, composite: Composite, labels: Tensor
) -> Callable[[bool], Tensor]:
    """Energy of the contrastive relevance as a function of whether it can be differentiated."""

    def loss(create_graph: bool) -> Tensor:
        torch.manual_seed(11)  # the same dropout masks each time
        _, relevance = compute_relevance(
            model,
            pixels,
            composite,
            labels=labels,
            target="contrastive",
            create_graph=create_graph,
            update_statistics=False,
        )
        return energy(relevance)

    return loss


def stock_error(case: Case, model: nn.Module, pixels: Tensor, labels: Tensor) -> str:
    """Median error of stock Zennit's gradient against differences of stock Zennit's own map."""
    composite = stock_composite(case.composite)
    if composite is None:
        return "none"
    for module in model.modules():  # Zennit's hooks refuse in-place steps
        if hasattr(module, "inplace"):
            module.inplace = False
    loss = energy_loss(model, pixels, composite, labels)
    try:
        if not math.isfinite(loss(False)):  # nothing of a sample's relevance is left
            return "empty map"
        return f"{rough_error(model, loss, directions=6 if case.small else 2):.1e}"
    except RuntimeError as error:
        return f"raises {type(error).__name__}"


def stock_composite(name: str) -> Composite | None:
    """Stock Zennit's composite of this name, or the same made of its rules."""
    both = {"epsilon": 1e-2, "stabilizer": 1e-2}
    stabilizer = {"stabilizer": 1e-2}

    def everywhere(rule: Callable[[], rules.Hook]) -> Composite:
        layers = (types.Convolution, types.Linear)
        return stock.LayerMapComposite([*stock.layer_map_base(**stabilizer), (layers, rule())])

    known: dict[str, Callable[[], Composite]] = {
        "epsilon": lambda: everywhere(lambda: rules.Epsilon(epsilon=1e-2)),
        "zplus": lambda: everywhere(lambda: rules.ZPlus(**stabilizer)),
        "gamma": lambda: everywhere(lambda: rules.Gamma(0.25, **stabilizer)),
        "epsilon_plus": lambda: stock.EpsilonPlus(**both),
        "epsilon_plus_flat": lambda: stock.EpsilonPlusFlat(**both),
        "epsilon_gamma_box": lambda: stock.EpsilonGammaBox(low=-4.0, high=6.0, **both),
        "epsilon_alpha2_beta1": lambda: stock.EpsilonAlpha2Beta1(**both),
        "epsilon_alpha2_beta1_flat": lambda: stock.EpsilonAlpha2Beta1Flat(**both),
        "excitation_backprop": lambda: stock.ExcitationBackprop(**stabilizer),
        "guided_backprop": stock.GuidedBackprop,
    }
    return known[name]() if name in known else None


# Files in which no gradient arises. build, coverage, graph and guards choose hooks and refuse what
# hooks cannot treat; provenance looks up signs; bilrp is built on the engine; batches lays several
# targets side by side, and a row explains one. So rows need not be measured again for a message.
_NO_GRADIENTS = frozenset({
    "batches.py", "bilrp.py", "build.py", "coverage.py", "graph.py", "guards.py", "provenance.py",
})  # fmt: skip


def engine() -> str:
    """Digest of the files in which gradients arise: shows what a table was made with."""
    folder = Path(glioma_xai.attribution.__file__).parent
    files = [path for path in sorted(folder.glob("*.py")) if path.name not in _NO_GRADIENTS]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:10]
