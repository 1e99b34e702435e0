"""Layer-wise relevance propagation whose relevance is exactly differentiable in the weights."""

from glioma_xai.attribution.build import build_composite, uncovered_layers
from glioma_xai.attribution.composites import COMPOSITES
from glioma_xai.attribution.live import LiveComposite
from glioma_xai.attribution.methods import Method
from glioma_xai.attribution.relevance import compute_relevance
from glioma_xai.attribution.targets import Target

__all__ = [
    "COMPOSITES",
    "LiveComposite",
    "Method",
    "Target",
    "build_composite",
    "compute_relevance",
    "uncovered_layers",
]
