"""What all commands share: presets, resuming, and bad input in one line with exit code 2."""

import errno
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ppl_models import UsageError
from runners.loop import processes
from runners.loop.errors import first_line, is_out_of_memory
from runners.loop.folder import RunFolder
from runners.own import is_own

__all__ = [
    "Options",
    "command",
    "fresh",
    "interrupted",
    "newest",
    "options_of",
]

Options = dict[str, Any]

NOT_SETTINGS = ("data_root", "device", "graph", "images", "updates", "evidence", "text", "tensorboard")
"""Options that may change when a run is resumed: they say where it is and what to report, not what it is."""

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EFBIG)
"""What a full disk, a read-only folder or an impossible name say."""


def options_of(
    given: Options,
    *,
    name: str,
    defaults: Mapping[str, Any],
    presets: Mapping[str, Mapping[str, Any]],
    quick: Mapping[str, Any],
) -> tuple[Options, RunFolder, bool]:
    """All options of a run, its folder, and whether it is to go on from there.

    Args:
        given: What was typed.
        name: The command's name, with which its default run folders begin.
        defaults: The options of a run for which nothing was typed; the first of `presets` is their name.
        presets: What `--preset` puts in their place.
        quick: What `--quick` puts in place of those; what was typed wins.

    Raises:
        UsageError: The folder holds a run and `--resume` was not given, or the run was started with other options.
    """
    given = dict(given)
    resume = given.pop("resume", False)
    folder = RunFolder(given.pop("out", None) or (resume and newest(name)) or fresh(name))
    if folder.holds_run and not resume:
        raise UsageError(
            f"--out {folder.path}: holds a run already; --resume goes on with it, or choose another folder"
        )
    if resume and folder.holds_run:
        config = folder.read_json("config.json")
        saved = config.get("options") if isinstance(config, dict) else None
        if not isinstance(saved, dict):
            raise UsageError(f"{folder.path}: was not made by a command; in Python, load goes on with it")
        if config.get("command") != name:
            raise UsageError(f"{folder.path}: was made by {config.get('command')}.py, which resumes it")
        for option, value in given.items():
            same = saved.get(option) == value or _resolved(saved.get(option)) == _resolved(value)
            if is_own(str(value)) and is_own(str(saved.get(option))):
                # A file of the user's own may have moved; naming it again is what allows it to run.
                same = value.rpartition(":")[2] == saved[option].rpartition(":")[2]
            if option not in NOT_SETTINGS and not same:
                raise UsageError(
                    f"--{option.replace('_', '-')}: {folder.path} was started with {saved.get(option)!r}, found "
                    f"{value!r}; leave it out, or start another run"
                )
        moved = {o: value for o, value in given.items() if o in NOT_SETTINGS or is_own(str(value))}
        return dict(defaults) | saved | moved, folder, resume
    preset = presets[given.get("preset", next(iter(presets)))]
    options = dict(defaults) | preset | (quick if given.get("quick") else {}) | given
    if "epochs" in given and "steps" in given:
        raise UsageError("--epochs and --steps: give one of them")
    if "steps" in given or (given.get("quick") and "epochs" not in given):
        options["epochs"] = None
    return options, folder, resume


def command(
    main: Callable[..., Any] | None = None, *, resumes: bool = True, shared: bool = False
) -> Callable[..., Any]:
    """Let a `main(argv)` end in one line and exit code 2 where the input was bad; defects keep their traceback.

    Args:
        main: The function.
        resumes: Whether it has `--resume`, of which then is spoken where it was cut off.
        shared: Whether several processes can run it together, as torchrun starts them.
    """
    if main is None:
        return functools.partial(command, resumes=resumes, shared=shared)

    @functools.wraps(main)
    def checked(argv: Sequence[str] | None = None) -> Any:
        main_thread = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, functools.partial(_terminated, resumes=resumes)) if main_thread else None
        try:
            with processes.together():
                if processes.count() > 1 and not shared:
                    raise UsageError(f"runs in one process, found {processes.count()}: start it without torchrun")
                return main(argv)
        except processes.SaidElsewhere as error:
            raise SystemExit(2) from error
        except UsageError as error:
            print(f"{_name(main)}: {error}", file=sys.stderr)
            raise SystemExit(2) from error
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            print(
                f"{_name(main)}: {error.filename or 'writing'}: {error.strerror}; free or choose another place"
                f"{', then --resume' if resumes else ''}",
                file=sys.stderr,
            )
            raise SystemExit(2) from error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            said = first_line(error)
            print(f"{_name(main)}: too little memory ({said}), expected smaller networks or numbers", file=sys.stderr)
            raise SystemExit(2) from error
        except KeyboardInterrupt as interrupt:
            print(f"\ninterrupted{'; what was saved goes on with --resume' if resumes else ''}", file=sys.stderr)
            raise SystemExit(130) from interrupt
        finally:
            if main_thread:
                signal.signal(signal.SIGTERM, before or signal.SIG_DFL)

    return checked


def interrupted(stopped: int, out: Path, name: str) -> NoReturn:
    """Say how to resume a run that a signal ended, and exit as shells expect (130 for Ctrl-C)."""
    count = processes.count()
    python = "python" if count == 1 else f"torchrun --nproc-per-node {count}"
    print(f"\nstopped; to go on: {python} runners/{name}.py --resume --out {out}", file=sys.stderr)
    raise SystemExit(128 + (stopped or signal.SIGINT))


def _name(main: Callable[..., Any]) -> str:
    name = main.__module__.rpartition(".")[2]
    return Path(sys.argv[0]).stem if name == "__main__" else name


def _terminated(number: int, frame: Any, *, resumes: bool) -> NoReturn:
    print(f"\nterminated{'; what was saved goes on with --resume' if resumes else ''}", file=sys.stderr)
    raise SystemExit(128 + number)


def fresh(name: str) -> Path:
    """A new folder's path, named after the time, and numbered where two runs start in the same second."""
    stamp = time.strftime(f"{name}-%Y%m%d-%H%M%S")
    names = [stamp, *(f"{stamp}-{number}" for number in range(2, 100))]
    return next(path for path in map(Path("runs").joinpath, names) if not path.exists())


def newest(*names: str) -> Path | None:
    """The run of one of these commands under runs/ that was begun last."""
    configs = sorted(Path("runs").glob("*/config.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path.parent for path in configs if _command_of(path) in names), None)


def _command_of(config: Path) -> str | None:
    try:
        content = RunFolder(config.parent).read_json(config.name)
    except UsageError:
        return None  # some other folder's broken file is no business of this run
    return content.get("command") if isinstance(content, dict) else None


def _resolved(value: Any) -> Any:
    """A path to something that exists, absolute; anything else as it is."""
    return str(Path(value).resolve()) if isinstance(value, (str, Path)) and os.path.exists(value) else value
