"""What things cost beside the way that others do them: ratios, measured side by side in one run.

    python runners/bench.py                    every workload
    python runners/bench.py importance         one

Contenders take turns, so that what else the machine does hits them alike; a ratio is the median over the rounds, beside
the least and the largest.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from guides import Amortized
from guides.evidence import importance_sample, posterior_for
from ppl_models import VAE, Batch, MLPDecoder, MLPEncoder
from runners.loop.command import Parser, command, positive

__all__ = ["WORKLOADS", "Timing", "main", "measure"]


@dataclass(frozen=True)
class Timing:
    """Seconds of each round, by contender; the toolkit is the first.

    Attributes:
        workload: What was done.
        unit: What one second of it is about, such as "image".
        seconds: For one of those, by contender and round.
    """

    workload: str
    unit: str
    seconds: dict[str, list[float]]

    def ratios(self, name: str) -> list[float]:
        """A contender's time over the toolkit's, round by round."""
        ours = next(iter(self.seconds.values()))
        return [theirs / our for theirs, our in zip(self.seconds[name], ours, strict=True)]

    def __repr__(self) -> str:
        width = max(map(len, self.seconds))
        lines = [self.workload]
        for name, seconds in self.seconds.items():
            ratios = self.ratios(name)
            lines.append(
                f"  {name:{width}}  {1e3 * statistics.median(seconds):10.2f} ms per {self.unit}   × "
                f"{statistics.median(ratios):.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
            )
        return "\n".join(lines)


def measure(
    workload: str, contenders: dict[str, Callable[[], int]], *, unit: str, rounds: int, device: torch.device
) -> Timing:
    """Let contenders take turns, after a turn each that does not count.

    Args:
        workload: What they do.
        contenders: By name, functions that do it once and return to how many units.
        unit: What those are.
        rounds: Turns each.
        device: Which device to wait for.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, contender in contenders.items():
            _wait(device)
            started = time.perf_counter()
            count = contender()
            _wait(device)
            if turn:
                seconds[name].append((time.perf_counter() - started) / count)
    return Timing(workload, unit, seconds)


def importance(rounds: int, device: torch.device, *, samples: int = 5000) -> Timing:
    """Importance-sampled evidence of images under a 784-500-500-40 VAE, against a loop over the images.

    The loop is what pythae's `get_nll` does: for one image at a time, in parts of 100 samples, copies of the image go
    through the encoder, and the parts of the weights are summed up.
    """
    torch.manual_seed(0)
    model = VAE(decoder=MLPDecoder(latents=40, hidden=(500, 500))).to(device)
    guide = Amortized(encoder=MLPEncoder(hidden=(500, 500)), latents=40).to(device)
    x = (torch.rand(100, 1, 28, 28, device=device) < 0.2).float()

    def ours(count: int = 100, precision: torch.dtype = torch.float32) -> int:
        batch = Batch(x[:count], None, torch.arange(count, device=device))
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
            importance_sample(model, partial(posterior_for, model, guide), [batch], samples=samples)
        return count

    @torch.no_grad()
    def loop(count: int = 5, part: int = 100) -> int:
        for image in x[:count]:
            weights: list[Tensor] = []
            for _ in range(samples // part):
                copies = image.expand(part, 1, 28, 28)
                features = guide.encoder(copies)
                loc, log = guide.heads["loc"](features), guide.heads["log"](features)
                z = loc + log.exp() * torch.randn_like(loc)
                log_q = (-0.5 * ((z - loc) / log.exp()).square() - log).sum(-1)
                log_p = (-0.5 * z.square()).sum(-1)
                logits = model.decoder(z)
                entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, copies, reduction="none")
                weights.append(log_p - log_q - entropy.flatten(1).sum(1))
            float(torch.cat(weights).logsumexp(0) - math.log(samples))
        return count

    contenders = {
        "100 images at a time": ours,
        "the same in bf16": lambda: ours(precision=torch.bfloat16),
        "a loop over images": loop,
    }
    workload = f"log p(x) by {samples:,} importance samples, 784-500-500-40"
    return measure(workload, contenders, unit="image", rounds=rounds, device=device)


WORKLOADS = {"importance": importance}


def _workload(text: str) -> str:
    if text not in WORKLOADS:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected {', '.join(WORKLOADS)}")
    return text


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@command(resumes=False)
def main(argv: Sequence[str] | None = None) -> list[Timing]:
    """Run the command; returns the timings."""
    parser = Parser("What things cost beside the way that others do them.", __doc__, default=None)
    parser.add_argument("workloads", nargs="*", type=_workload, metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--rounds", type=positive, default=5, help="turns of each contender (default: 5)")
    options = parser.parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    timings = []
    for name in options.workloads or WORKLOADS:
        timings.append(WORKLOADS[name](options.rounds, device))
        print(timings[-1])
    return timings


if __name__ == "__main__":
    timings = main()
