"""Measures of samples without downloads: a classifier trained here, distances in its features, all in one table.

from runners import data, metrics

mnist = data.mnist()
trained = metrics.classifier(mnist, folder=Path("runs/classifiers"))
found = metrics.measure(samples, mnist, trained)  # samples (N, 1, 28, 28) in [0, 1]
lines = metrics.table([("my model", found)])  # Markdown
"""

from runners.metrics.classes import class_balance
from runners.metrics.classifiers import Classifier, Trained, classifier
from runners.metrics.distances import frechet_distance, kernel_distance, sliced_wasserstein
from runners.metrics.measures import measure, table
from runners.metrics.neighbours import memorisation, prdc, two_sample_accuracy
from runners.metrics.ranks import rank_correlation

__all__ = [
    "Classifier",
    "Trained",
    "class_balance",
    "classifier",
    "frechet_distance",
    "kernel_distance",
    "measure",
    "memorisation",
    "prdc",
    "rank_correlation",
    "sliced_wasserstein",
    "table",
    "two_sample_accuracy",
]
