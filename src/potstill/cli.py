"""potstill <command> [hydra overrides]: commands, help, completion, exit codes.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from potstill import __version__
from potstill.config.compose import refused
from potstill.config.explain import REFUSALS
from potstill.config.paths import CONF, groups
from potstill.config.rerun import overrides_of, place_of
from potstill.errors import BAD_INPUT, DONE, FAILED, INTERRUPTED, StoppedError, UserError, nearest_hint, readable
from potstill.interrupts import sigterm_interrupts
from potstill.tracking.secrets import redact

if TYPE_CHECKING:
    from potstill.sweeps.record import SweepRecord

COMMANDS = {
    "train": "train one student, with or without a teacher",
    "cache": "ask the teacher about all training data, once: potstill cache ...; or cache list|verify|prune DIR",
    "evaluate": "teacher, student and baseline on held-out test data: potstill evaluate run=PATH",
    "run": "a recipe: stages in order, each skipped when its output is already there",
    "compare": "runs of a sweep, ranked, and which differences hold up: potstill compare PATH [PATH ...]",
    "generate": "a teacher's text to prompts, each paid for once: potstill generate teacher=openai_compatible",
    "audit": "the data before a verdict: test items in train, gaps, a teacher's errors: potstill audit data=...",
    "sweep": "many jobs, as of -m: begun from a file, looked at, gone on with: potstill sweep start FILE",
    "mine": "where the teacher is right and the student wrong, and what to ask next: potstill mine run=PATH",
    "gain": "what a round of mining gained and lost, and whether to go on: potstill gain run=PATH before=PATH ...",
    "inspect": "what a config builds: modules, parameters, groups and their options",
}

SWEPT = ("train", "run", "evaluate")  # commands that -m makes several jobs of
MULTIRUN = ("-m", "--multirun")
STORED = ("list", "verify", "prune")  # what `cache` does besides filling one
PLACES = {
    "cache": "[list DIR | verify DIR | prune DIR]",
    "sweep": "start FILE | status DIR | resume DIR",
    "compare": "PATH [PATH ...]",
}  # before key=value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        with sigterm_interrupts():
            return _dispatch(given)
    except (UserError, StoppedError) as error:
        if debug:
            traceback.print_exception(error)
        else:
            print("", _shown(error), sep="\n", file=sys.stderr)
        return BAD_INPUT if isinstance(error, UserError) else FAILED
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED


def _shown(error: UserError | StoppedError) -> str:
    """Its message, without the credentials that somebody may have typed."""
    if isinstance(error, UserError):
        hidden = UserError(error.key, redact(error.value, error.key), error.problem, error.fix)
        hidden.__notes__ = getattr(error, "__notes__", [])
        error = hidden
    return "\n".join(" ".join(map(redact, line.split(" "))) for line in readable(error).splitlines())


def _dispatch(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help"):
        print(help_text())
        return DONE
    if given[0] == "--version":
        print(f"potstill {__version__}")
        return DONE
    if given[0] in ("-sc", "--shell-completion", "--shell_completion"):
        return _complete(given)
    command, *overrides = given
    if command not in COMMANDS:
        raise UserError("command", command, "is no command.", f"{nearest_hint(command, COMMANDS)} See potstill --help")
    if "-h" in overrides or "--help" in overrides:
        print(help_text(command))
        return DONE
    if command == "run":
        overrides = [re.sub("^(debug|bar)=", r"\1_preset=", text) for text in overrides]
    if command == "compare":
        overrides = _with_paths(overrides)
    if command == "generate":
        overrides = ["status=true" if text == "--status" else text for text in overrides]
    if command == "cache" and overrides[:1] and overrides[0] in STORED:
        return importlib.import_module("potstill.commands.stored").main(overrides)
    if command == "sweep":
        return importlib.import_module("potstill.commands.sweep").main(overrides, _sweep)
    is_many = command in SWEPT and any(text in MULTIRUN for text in overrides)
    return _sweep(command, overrides) if is_many else _launch(command, _expand(overrides))


def _with_paths(overrides: list[str]) -> list[str]:
    """Of compare: a word that is no flag, no flag's value and no key=value (or is a file of that name) is a path."""
    words = [text for before, text in pairwise(["", *overrides]) if not before.startswith("-") and text[:1] != "-"]
    paths = [text for text in words if "=" not in text or Path(text).exists()]
    quoted = ",".join("'" + path.replace("'", r"\'") + "'" for path in paths)
    return [*([f"paths=[{quoted}]"] if paths else []), *(text for text in overrides if text not in paths)]


def _expand(overrides: list[str]) -> list[str]:
    """Spell out our own forms: `--cfg` alone, --from RUN, --resume RUN, --allow-changed KEY, --config-dir DIR."""
    if "--cfg" in overrides and overrides[overrides.index("--cfg") + 1 :][:1] not in (["job"], ["hydra"], ["all"]):
        overrides.insert(overrides.index("--cfg") + 1, "job")
    for run in _take(overrides, "--from", "Give the run's directory: --from runs/..."):
        overrides[:0] = overrides_of(Path(run), "--from")
    for run in _take(overrides, "--resume", "Give the run's directory: --resume runs/..."):
        overrides[:0] = [*overrides_of(Path(run), "--resume"), *place_of(Path(run)), "run.resume=true"]
    if allowed := _take(overrides, "--allow-changed", "Give a key: --allow-changed optim.max_steps"):
        overrides.append(f"run.allow_changed=[{','.join(allowed)}]")
    if directories := [Path(text).absolute() for text in _take(overrides, "--config-dir", "Give a directory.")]:
        overrides.append(_searchpath(directories))
    for flag in [text.partition("=")[0] for text in overrides if text.startswith("-")]:
        if flag not in HYDRA_FLAGS:
            hint = nearest_hint(flag, (*HYDRA_FLAGS, *OWN_FLAGS))
            raise UserError("flag", flag, "is no flag.", f"{hint} See potstill --help")
    return overrides


def _searchpath(directories: list[Path]) -> str:
    """`--config-dir DIR` as the override that it stands for, which goes wherever overrides go."""
    for directory in directories:
        if not directory.is_dir():
            raise UserError("--config-dir", str(directory), "is no directory.", "Give one that holds config groups.")
    return f"hydra.searchpath=[{','.join(f'file://{directory}' for directory in directories)}]"


def _take(overrides: list[str], flag: str, fix: str) -> list[str]:
    """Take every `flag VALUE` out of `overrides`; returns the values."""
    values = []
    while flag in overrides:
        at = overrides.index(flag)
        if at + 1 == len(overrides):
            raise UserError(flag, "", "needs a value.", fix)
        values.append(overrides[at + 1])
        del overrides[at : at + 2]
    return values


def _launch(command: str, overrides: list[str]) -> int:
    """Hand over to Hydra; whatever it refuses before a job starts is the user's to mend."""
    if command == "inspect" and "--cfg" not in overrides:
        importlib.import_module("potstill.commands.inspect").inspect(overrides)
        return DONE
    job = _Job("train" if command == "inspect" else command)
    _hydra(job.command, job.run, overrides, lambda: job.num_started > 0)
    if job.error:
        raise job.error  # without what Hydra would say to it
    return job.code


def _sweep(command: str, given: list[str], earlier: SweepRecord | None = None) -> int:
    """Many jobs of `command`: a sweep that begins or, with `earlier`, goes on. The exit code says how they ended."""
    commands = importlib.import_module("potstill.commands.sweep")
    overrides = [text for text in _expand(given) if text not in MULTIRUN]
    sweep: SweepRecord = earlier or commands.begin(command, overrides)
    job = importlib.import_module("potstill.commands.sweep_job").SweepJob(command, sweep)
    place = f"hydra.sweep.dir='{sweep.directory}'"

    def has_begun() -> bool:
        return any(sweep.directory.glob("[0-9]*"))

    try:
        _hydra(command, job.run, ["-m", *overrides, place], has_begun)
    except UserError:
        if not earlier and not has_begun():  # the same directory may be asked for again
            (sweep.directory / "sweep.json").unlink()
            _remove_empty(sweep.directory)
        raise
    except KeyboardInterrupt:
        print(f"\nThe rest of the sweep is kept; go on: potstill sweep resume {sweep.directory}", file=sys.stderr)
        raise
    except StoppedError:
        if not has_begun():  # else a job's, which has told of it: Hydra's own sweeper raises it again
            raise
    except Exception as error:  # of the launcher: a worker was killed, a scheduler took a job away
        if not has_begun():
            raise
        print(f"\nThe launcher gave up: {error}", file=sys.stderr)
    return commands.outcome(sweep)


def _hydra(command: str, task: Callable[[DictConfig], Any], overrides: list[str], begun: Callable[[], bool]) -> None:
    """Run `task` once, or for each job of a multirun. What Hydra refuses before any has begun is the user's to mend."""
    sys.argv = ["potstill", *overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand exceptions over as they are
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=command)(task)()
    except (*REFUSALS, OSError) as error:
        if begun() and not hasattr(error, "fix"):  # a sweeper's own refusal comes at any time
            raise
        if not isinstance(error, REFUSALS):  # Hydra makes the directory; a group it misses is an OSError of its own
            fix = "Choose another directory: run.dir=..."
            raise UserError("run.dir", error.filename, f"cannot be made: {error.strerror}.", fix) from error
        raise refused(error, command, [text for text in overrides if not text.startswith("-")]) from error


class _Job:
    """What Hydra calls for a single run. Imports late: `--help` must not load torch."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.num_started = 0
        self.error: Exception | None = None
        self.code = DONE

    def run(self, config: DictConfig) -> None:
        self.num_started += 1
        try:
            returned = importlib.import_module(f"potstill.commands.{self.command}").main(config)
            self.code = returned if isinstance(returned, int) else DONE  # of a verdict
        except Exception as error:
            self.error = error
            if isinstance(error, UserError):
                _remove_empty(Path(HydraConfig.get().runtime.output_dir))


def _remove_empty(directory: Path) -> None:
    """Take back the directories that Hydra made for a job which never started; never the current one or above."""
    here = Path.cwd()
    with suppress(OSError):  # a mount, or a directory that is not ours to remove: it stays
        while here in directory.parents and directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()
            directory = directory.parent


def _complete(given: list[str]) -> int:
    """Shell completion: the command first, then Hydra's own for its overrides."""
    words = os.environ.get("COMP_LINE", "").split(" ")
    if len(words) <= 2 and "query" in given[-1]:
        print(" ".join(command for command in COMMANDS if command.startswith(words[-1])))
        return DONE
    configured = ("audit", "cache", "compare", "evaluate", "gain", "generate", "mine", "run")
    command = words[1] if len(words) > 1 and words[1] in configured else "train"
    os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    return _launch(command, given)


def help_text(command: str | None = None) -> str:
    """Commands, groups with their options, and flags."""
    commands = {command: COMMANDS[command]} if command else COMMANDS
    lines = [
        f"usage: potstill {command or '<command>'} {PLACES.get(command or '', '')} [key=value ...]".replace("  ", " "),
        "",
        "commands:" if not command else "command:",
    ]
    lines += [f"  {name:<10}{text}" for name, text in commands.items()]
    lines += ["", "groups and their options (group=option; loss/term takes a list: 'loss/term=[ce,kd]'):"]
    lines += [f"  {group:<12}{', '.join(options)}" for group, options in groups().items()]
    lines += ["", "flags:", *(f"  {flag:<26}{text}" for flag, text in FLAGS.items())]
    lines += ["", "Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted; of a verdict 0 SHIP, 3 DO_NOT_SHIP,"]
    lines += ["4 NOT_ENOUGH_EVIDENCE."]
    return "\n".join(lines)


OWN_FLAGS = ("--from", "--resume", "--allow-changed", "--config-dir", "--status", "--debug", "--help", "--version")
# Flags that are handed on. Of them, FLAGS lists what is of use here.
HYDRA_FLAGS = (
    *(*MULTIRUN, "-c", "--cfg", "--resolve", "-p", "--package", "-i", "--info"),
    *("-sc", "--shell-completion", "--shell_completion"),
)

FLAGS = {
    "-m, --multirun": "one job for every combination: -m loss.term.kd.temperature=1,2,4",
    "--cfg": "print the composed config and leave; --resolve fills in what it refers to",
    "--from RUN": "start from the overrides of an earlier run",
    "--resume RUN": "go on with an interrupted run, from its last checkpoint",
    "--allow-changed KEY": "with --resume: this key may differ from the run's own; may be repeated",
    "--config-dir DIR": "look for config groups in DIR too",
    "--status": "of generate: only say where the generation stands",
    "--debug": "show the traceback of bad input as well",
    "-sc install=bash|zsh|fish": 'shell completion: eval "$(potstill -sc install=bash)"',
    "--version": "print the version",
}
