"""What fits come to side by side: bounds of images, surprise by a text, samples."""

from runners.comparisons.base import Comparison
from runners.comparisons.bounds import BoundComparison, compare_bounds
from runners.comparisons.samples import SampleComparison, compare_samples
from runners.comparisons.surprise import SurpriseComparison, compare_surprise

__all__ = [
    "BoundComparison",
    "Comparison",
    "SampleComparison",
    "SurpriseComparison",
    "compare_bounds",
    "compare_samples",
    "compare_surprise",
]
