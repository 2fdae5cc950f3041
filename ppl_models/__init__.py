"""Generative models as Pyro programs."""

from ppl_models.batch import Batch, UsageError

__all__ = ["Batch", "UsageError"]
