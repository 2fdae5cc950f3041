"""The one training loop: svi, gan, text and the classifier differ in their step alone."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor
from tqdm import tqdm

from ppl_models import Batch
from runners.loop.history import History

__all__ = ["Step", "train"]

SAVING = 0.05
"""The largest share of the time that checkpoints may take."""
PAUSE = 5.0
"""Seconds at least between two checkpoints."""


class Step(Protocol):
    """One training step: everything that happens between two rows of data and a dict of scalars."""

    batches: int
    """How many batches it needs."""

    def before(self, step: int, steps: int) -> None:
        """What the host does before step n of N, such as filling in schedules; the step itself reads no host number."""

    def __call__(self, *batches: Batch) -> dict[str, Tensor]:
        """Train on the batches; scalars stay on the device."""


def train(
    step: Step,
    stream: Iterator[Batch],
    history: History,
    *,
    until: int,
    every: int = 100,
    save: Callable[[], None] | None = None,
    on_row: Callable[[dict[str, float]], None] | None = None,
    on_step: Callable[[int], None] | None = None,
    agreed: Callable[..., tuple[int, ...]] = lambda *found: found,
    progress: bool = True,
) -> int | None:
    """Run steps until `history.step` is `until`.

    Args:
        step: The step.
        stream: Endless batches.
        history: Where the run stands; gets a row every `every` steps.
        until: The step to stop at, N of the schedules.
        every: Steps between rows, at most 1000.
        save: Writes a checkpoint; called at once, then so that it takes at most 5 % of the time, then at the end.
            Not called where a step since the last row returned something that is not finite.
        on_row: Called with each row.
        on_step: Called with the number of steps done, after each.
        agreed: Of several processes, makes of what this one has found what all act on; asked once a step whether a
            signal came and a checkpoint is due.
        progress: Whether to show a bar on the terminal.

    Returns:
        The signal that stopped it early (SIGINT, SIGTERM), after the step in hand and a checkpoint, or `None`.

    Raises:
        Diverged: A step returned something that is not finite.
    """
    bar = tqdm(total=until, initial=history.step, disable=not progress, unit="step", dynamic_ncols=True)
    with bar, _deferred_signals() as stopped:
        cost, saved = _saved(save, history), time.monotonic()
        while history.step < until:
            late = time.monotonic() - saved > max(cost / SAVING, PAUSE)
            signalled, late = agreed(sum(stopped[:1]), late)
            if signalled:
                break
            if late:
                cost = _saved(save, history)
                saved = time.monotonic()
            started = time.monotonic()
            step.before(history.step, until)
            history.record(step(*(next(stream) for _ in range(step.batches))))
            due = history.step % every == 0 or history.step == until
            row = history.log() if due else {}  # waits for the device, so that `seconds` counts all of its work
            history.seconds += time.monotonic() - started
            if due:
                bar.set_postfix({name: f"{row[name]:.2f}" for name in row if name not in ("step", "seconds", "loss")})
                if on_row:
                    on_row(row)
            if on_step:
                on_step(history.step)
            bar.update()
        _saved(save, history)
        (signalled,) = agreed(sum(stopped[:1]))
    return signalled or None


def _saved(save: Callable[[], None] | None, history: History) -> float:
    """Save, unless the run has diverged; returns the seconds that it took."""
    started = time.monotonic()
    if save:
        history.check()
        save()
    return time.monotonic() - started


@contextmanager
def _deferred_signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM instead of dying in mid-step; a second Ctrl-C interrupts at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield received
        return

    def receive(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    previous = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: set by something that is not Python
