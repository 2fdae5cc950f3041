"""What things cost beside the way that others do them: ratios, measured side by side in one run.

    python runners/bench.py                       every workload
    python runners/bench.py conv svi --threads 1  two of them, on one core
    python runners/bench.py rows-1e4 rows-1e6     what a step costs as the data set grows
    python runners/bench.py reach                 seconds to a test ELBO of -110 nats
    python runners/bench.py --quick               in three minutes, without memory and the largest tables
    python runners/bench.py --out table.md        a table as well, or .csv

Contenders take turns, in an order that changes from round to round, so that what else the machine does hits them
alike; a ratio is a contender's time over the toolkit's, the median over the rounds, beside the least and the largest.
Others have torch's own layers and are eager; on a CPU the toolkit's last layer for grey images is its own, and on CUDA
its steps are graphs, beside which "no graph" stands.
"""

import argparse
import csv
import io
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import torch

from ppl_models import UsageError
from runners import data
from runners.contenders import WORKLOADS, Contender, Setting, Workload
from runners.contenders.costs import Floor, floor_of, peak_memory, rates_of, wait
from runners.contenders.reach import reach
from runners.devices import device_of, device_or_default
from runners.loop.atomic import write_atomically
from runners.loop.capture import WARM_UP
from runners.loop.command import command
from runners.loop.parser import Parser, given_path, positive
from runners.loop.random import forked

__all__ = ["Timing", "main", "measure"]

REACH = "reach"
LARGE = ("rows-1e6", "rows-1e7")
"""What --quick leaves out."""

BUDGET, ROUNDS, TARGET = 1.0, 7, -110.0
QUICK = {"budget": 0.15, "rounds": 2, "target": -200.0, "count": 5000}

Turn = Callable[[int], int]


@dataclass(frozen=True)
class Timing:
    """Seconds of each round, by contender; the toolkit is the first.

    Attributes:
        workload: What was done.
        unit: What is counted, in the plural.
        size: How many of those a step has.
        seconds: For one of those, by contender and round.
        memory: Bytes, by contender, where they were measured.
        floor: What the arithmetic and the traffic of a step take, where they were counted.
    """

    workload: str
    unit: str
    size: int
    seconds: dict[str, list[float]]
    memory: dict[str, int | None] = field(default_factory=dict)
    floor: Floor | None = None

    def ratios(self, name: str) -> list[float]:
        """A contender's time over the toolkit's, round by round."""
        ours = next(iter(self.seconds.values()))
        return [theirs / our for theirs, our in zip(self.seconds[name], ours, strict=True)]

    def rows(self) -> list[dict[str, str]]:
        """A table: a row for each contender."""
        return [self._row(name) for name in self.seconds]

    def _row(self, name: str) -> dict[str, str]:
        ratios, second = self.ratios(name), statistics.median(self.seconds[name])
        memory, floor = self.memory.get(name), self.floor
        return {
            "workload": self.workload,
            "contender": name,
            "ms per step": f"{1e3 * second * self.size:.2f}",
            "units per second": f"{_rounded(1 / second)} {self.unit}",
            "ratio": _ratio(statistics.median(ratios)),
            "least": _ratio(min(ratios)),
            "largest": _ratio(max(ratios)),
            "memory MB": "" if memory is None else f"{memory / 1e6:.0f}",
            "arithmetic ms": "" if floor is None else f"{1e3 * floor.arithmetic:.3f}",
            "traffic ms": "" if floor is None else f"{1e3 * floor.traffic:.3f}",
        }

    def __repr__(self) -> str:
        width, lines = max(map(len, self.seconds)), [self.workload]
        for row in self.rows():
            memory = f"  {row['memory MB']:>6} MB" if row["memory MB"] else ""
            lines.append(
                f"  {row['contender']:{width}}  {row['ms per step']:>10} ms  {row['units per second']:>17}/s   × "
                f"{row['ratio']}  ({row['least']} to {row['largest']}){memory}"
            )
        if self.floor is not None:
            ours = statistics.median(next(iter(self.seconds.values()))) * self.size
            arithmetic, traffic, rates = self.floor.arithmetic, self.floor.traffic, self.floor.rates
            lines.append(
                f"  floor: {1e3 * arithmetic:.2f} ms for {self.floor.flops / 1e9:.3g} GFLOP at {rates.flops / 1e9:.3g} "
                f"a second, {1e3 * traffic:.2f} ms for {self.floor.bytes / 1e6:.4g} MB at {rates.bytes / 1e6:.3g}; the "
                f"larger is {max(arithmetic, traffic) / ours:.0%} of the toolkit's step"
            )
        return "\n".join(lines)


def _ratio(number: float) -> str:
    return f"{number:.2f}" if number >= 0.1 else f"{number:.1g}"


def _rounded(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def measure(contenders: dict[str, Turn], *, rounds: int, budget: float, device: torch.device) -> dict[str, list[float]]:
    """Seconds per unit, by contender and round: they take turns, forwards and backwards, after unmeasured ones.

    Args:
        contenders: By name, functions that do their work n times and return for how many units.
        rounds: Turns each.
        budget: Seconds of a turn, about.
        device: Which device to wait for.
    """
    steps: dict[str, int] = {}
    for name, contender in contenders.items():
        contender(WARM_UP + 1)  # what is compiled, checked, allocated or recorded at first
        steps[name] = max(round(budget / _seconds(contender, 1, device)[0]), 1)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in list(contenders) if turn % 2 == 0 else reversed(contenders):
            spent, count = _seconds(contenders[name], steps[name], device)
            seconds[name].append(spent / count)
    return seconds


def _seconds(contender: Turn, steps: int, device: torch.device) -> tuple[float, int]:
    wait(device)
    started = time.perf_counter()
    count = contender(steps)
    wait(device)
    return time.perf_counter() - started, count


def timed(name: str, setting: Setting, *, rounds: int, budget: float, memory: bool) -> Timing:
    """A workload's timing, with what a step must cost, and with the memory of each contender."""
    workload: Workload = WORKLOADS[name](setting)
    for note in workload.notes:
        print(note, file=sys.stderr)
    used = {each: peak_memory(WORKLOADS[name], each, setting) for each in workload.contenders} if memory else {}
    counted = workload.contenders[workload.counted]()
    counted(1)
    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    # Before there is a graph, in which operations cannot be counted.
    floor = floor_of(counted, rates_of(setting.device, dtype=dtype), size=workload.size)
    del counted
    made: dict[str, Contender] = {each: make() for each, make in workload.contenders.items()}
    seconds = measure(made, rounds=rounds, budget=budget, device=setting.device)
    return Timing(workload.title, workload.unit, workload.size, seconds, used, floor)


def table(timings: Sequence[Timing], machine: str, *, markdown: bool) -> str:
    """The timings as a table, in Markdown below a line about the machine, or in CSV with it in every row."""
    rows = [row for timing in timings for row in timing.rows()]
    if markdown:
        lines = [machine, "", f"| {' | '.join(rows[0])} |", f"|{' --- |' * len(rows[0])}"]
        return "\n".join(lines + [f"| {' | '.join(row.values())} |" for row in rows]) + "\n"
    written = io.StringIO()
    writer = csv.DictWriter(written, [*rows[0], "machine"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"machine": machine} for row in rows)
    return written.getvalue()


def machine_of(setting: Setting) -> str:
    """The date, the processor, how much of it, and the version of torch, in a line."""
    if setting.device.type == "cuda":
        processor = torch.cuda.get_device_name(setting.device)
    else:
        info = Path("/proc/cpuinfo")
        models = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
        name = models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()
        processor = f"{name}, {torch.get_num_threads()} threads"
    return f"{date.today()}, {processor}, {setting.precision}, torch {torch.__version__}"


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """So many threads, on as many cores: not every library asks torch."""
    if count is None:
        yield
        return
    threads, cores = torch.get_num_threads(), getattr(os, "sched_getaffinity", lambda _: set())(0)
    torch.set_num_threads(count)
    if cores:
        os.sched_setaffinity(0, set(sorted(cores)[:count]))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if cores:
            os.sched_setaffinity(0, cores)


def _workload(text: str) -> str:
    if text not in (*WORKLOADS, REACH):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected {', '.join(WORKLOADS)}, {REACH}")
    return text


def _parser() -> Parser:
    parser = Parser("What things cost beside the way that others do them.", __doc__, default=None)
    add = parser.add_argument
    add("workloads", nargs="*", type=_workload, metavar="WORKLOAD", help=", ".join((*WORKLOADS, REACH)))
    add("--rounds", type=positive, help=f"turns of each contender (default: {ROUNDS}, quick: {QUICK['rounds']})")
    add("--quick", action="store_true", help="short turns on fewer images, to see that all is well")
    add("--device", help="cpu, cuda, cuda:1 … (default: CUDA where there is one)")
    add("--precision", choices=["float32", "bf16"], default="float32", help="of the networks (default: float32)")
    add("--threads", type=positive, metavar="N", help="on the first N cores alone (default: as many as torch takes)")
    add("--data-root", type=given_path, help="folder with data sets, for reach (default: $PPL_DATA, else data/)")
    add("--out", type=given_path, metavar="FILE", help="also write a table, .md or .csv")
    return parser


@command(resumes=False)
def main(argv: Sequence[str] | None = None) -> list[Timing]:
    """Run the command; returns the timings."""
    options = _parser().parse_args(argv)
    out: Path | None = options.out
    if out and (out.suffix not in (".md", ".csv") or out.is_dir() or not os.access(out.parent, os.W_OK)):
        raise UsageError(f"--out: found {out}, expected a file .md or .csv in a folder that can be written to")
    cores = len(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0))
    if options.threads and options.threads > cores:
        raise UsageError(f"--threads: found {options.threads}, expected 1 to {cores}, the cores that there are")
    device = device_or_default(device_of(options.device))
    quick = QUICK if options.quick else {}
    setting = Setting(device, options.precision, count=quick.get("count", Setting.count))
    rounds, budget = options.rounds or quick.get("rounds", ROUNDS), quick.get("budget", BUDGET)
    names = options.workloads or [name for name in (*WORKLOADS, REACH) if not (quick and name in LARGE)]
    timings: list[Timing] = []
    with _threads(options.threads), forked(0, device):
        machine = machine_of(setting)
        print(machine)
        for name in names:
            if name == REACH:
                timings.append(_reach(setting, rounds, target=quick.get("target", TARGET), root=options.data_root))
            else:
                how = {"rounds": rounds, "budget": budget, "memory": not quick}
                timings.append(timed(name, setting, **how))
            print(timings[-1], flush=True)
            if out is not None:
                text = table(timings, machine, markdown=out.suffix == ".md")
                write_atomically(out, lambda file, text=text: file.write(text.encode()))
    return timings


def _reach(setting: Setting, rounds: int, *, target: float, root: Path | None) -> Timing:
    digits = data.load("auto", root=root)
    # Each of these is a whole run.
    seconds = reach(setting, digits, target=target, rounds=max(rounds // 2, 1))
    title = f"S2, batch 64, on {digits.name}: to a test ELBO of {target:g} nats"
    return Timing(title, "runs", 1, seconds)


if __name__ == "__main__":
    timings = main()
