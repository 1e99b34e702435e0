"""How well a network classifies, where its relevance lies, and how far either number holds."""

from glioma_xai.metrics.classification import ClassificationScores
from glioma_xai.metrics.relevance import RelevanceScores

__all__ = ["ClassificationScores", "RelevanceScores"]
