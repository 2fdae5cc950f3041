"""What tables of studies say of a finished run."""

from typing import Any

from runners.studies.point import Made

__all__ = ["final"]


def final(made: Made) -> dict[str, Any]:
    """ELBO, log-likelihood and KL of the test images with standard errors, nats per image, and the seconds of training.

    Columns without their errors but for the ELBO's, so that a table fits a page.
    """
    test = made.result["test"]
    found = {name: test[name] for name in ("elbo", "elbo_se", "log_likelihood", "kl") if name in test}
    return found | {"seconds": made.result["seconds"]}
