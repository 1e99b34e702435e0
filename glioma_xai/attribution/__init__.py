"""Layer-wise relevance propagation whose relevance is exactly differentiable in the weights."""

from glioma_xai.attribution.composites import COMPOSITES, LiveComposite, build_composite
from glioma_xai.attribution.coverage import uncovered
from glioma_xai.attribution.relevance import compute_relevance
from glioma_xai.attribution.targets import Target

__all__ = [
    "COMPOSITES",
    "LiveComposite",
    "Target",
    "build_composite",
    "compute_relevance",
    "uncovered",
]
