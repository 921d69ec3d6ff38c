"""potstill <command> [hydra overrides]: commands, help, completion, exit codes.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from potstill import __version__
from potstill.config.compose import refused
from potstill.config.explain import REFUSALS
from potstill.config.paths import CONF, groups
from potstill.config.rerun import overrides_of
from potstill.errors import UserError, nearest_hint

COMMANDS = {
    "train": "train one student, with or without a teacher",
    "evaluate": "teacher, student and baseline on held-out test data: potstill evaluate run=PATH",
    "run": "a recipe: stages in order, each skipped when its output is already there",
    "inspect": "what a config builds: modules, parameters, groups and their options",
}

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
MAX_COLUMNS = 100  # of an error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        return _dispatch(given)
    except UserError as error:
        if debug:
            traceback.print_exception(error)
        else:
            _report(error)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED


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
        overrides = [f"debug_preset{text[5:]}" if text.startswith("debug=") else text for text in overrides]
    return _launch(command, _expand(overrides))


def _expand(overrides: list[str]) -> list[str]:
    """Spell out our own short forms: `--cfg` alone, and `--from RUN`."""
    if "--cfg" in overrides and overrides[overrides.index("--cfg") + 1 :][:1] not in (["job"], ["hydra"], ["all"]):
        overrides.insert(overrides.index("--cfg") + 1, "job")
    if "--from" in overrides:
        at = overrides.index("--from")
        if at + 1 == len(overrides):
            raise UserError("--from", "", "names no run.", "Give the run's directory: --from runs/...")
        overrides[at : at + 2] = overrides_of(Path(overrides[at + 1]))
    for flag in [text.partition("=")[0] for text in overrides if text.startswith("-")]:
        if flag not in HYDRA_FLAGS:
            raise UserError("flag", flag, "is no flag.", f"{nearest_hint(flag, HYDRA_FLAGS)} See potstill --help")
    return sorted(overrides, key=lambda text: text not in ("-m", "--multirun"))  # Hydra wants it first


def _launch(command: str, overrides: list[str]) -> int:
    """Hand over to Hydra; whatever it refuses before a job starts is the user's to mend."""
    if command == "inspect" and "--cfg" not in overrides:
        importlib.import_module("potstill.commands.inspect").inspect(overrides)
        return DONE
    jobs = _Jobs("train" if command == "inspect" else command)
    sys.argv = ["potstill", *overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand exceptions over as they are
    decorate = hydra.main(version_base="1.3", config_path=str(CONF), config_name=jobs.command)
    try:
        decorate(jobs.run)()
    except REFUSALS as error:
        if not jobs.num_started:
            raise refused(error, jobs.command, [text for text in overrides if not text.startswith("-")]) from error
        if not jobs.errors:
            raise
    except Exception:
        if not jobs.errors:
            raise
    return jobs.outcome()


class _Jobs:
    """What Hydra calls, once a run or once per job of a multirun. Imports late: `--help` must not load torch."""

    def __init__(self, command: str) -> None:
        self.command, self.is_multirun = command, False
        self.num_started = 0
        self.errors: list[Exception] = []

    def run(self, config: DictConfig) -> Any:
        self.num_started += 1
        self.is_multirun = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            return importlib.import_module(f"potstill.commands.{self.command}").main(config)
        except Exception as error:
            self.errors.append(error)
            if isinstance(error, UserError):
                _remove_empty(Path(HydraConfig.get().runtime.output_dir))
            if not self.is_multirun:
                return None  # `outcome` raises it, without what Hydra would say to it
            self._report(error)
            raise  # a sweeper should see that the job failed; the others still run

    def outcome(self) -> int:
        """Raises the error of a single run; the exit code of a multirun, whose errors have been shown."""
        if not self.errors:
            return DONE
        if not self.is_multirun:
            raise self.errors[0]
        print(f"{len(self.errors)} of {self.num_started} jobs failed, see above.", file=sys.stderr)
        return BAD_INPUT if all(isinstance(error, UserError) for error in self.errors) else FAILED

    def _report(self, error: Exception) -> None:
        print(f"\nJob {self.num_started - 1} ({' '.join(HydraConfig.get().overrides.task)}) failed:", file=sys.stderr)
        if isinstance(error, UserError):
            _report(error)
        else:
            traceback.print_exception(error)


def _remove_empty(directory: Path) -> None:
    """Take back the directories that Hydra made for a job which never started; never the current one or above."""
    here = Path.cwd()
    while here in directory.parents and directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()
        directory = directory.parent


def _report(error: UserError) -> None:
    """Wrapped between words only: paths and commands stay whole, to be copied."""
    wrapper = textwrap.TextWrapper(MAX_COLUMNS, break_long_words=False, break_on_hyphens=False)
    print("", *(wrapper.fill(line) for line in str(error).splitlines()), sep="\n", file=sys.stderr)


def _complete(given: list[str]) -> int:
    """Shell completion: the command first, then Hydra's own for its overrides."""
    words = os.environ.get("COMP_LINE", "").split(" ")
    if len(words) <= 2 and "query" in given[-1]:
        print(" ".join(command for command in COMMANDS if command.startswith(words[-1])))
        return DONE
    command = words[1] if len(words) > 1 and words[1] in ("evaluate", "run") else "train"
    os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    return _launch(command, given)


def help_text(command: str | None = None) -> str:
    """Commands, groups with their options, and flags."""
    commands = {command: COMMANDS[command]} if command else COMMANDS
    lines = [
        f"usage: potstill {command or '<command>'} [key=value ...]",
        "",
        "commands:" if not command else "command:",
    ]
    lines += [f"  {name:<10}{text}" for name, text in commands.items()]
    lines += ["", "groups and their options (group=option; loss/term takes a list: 'loss/term=[ce,kd]'):"]
    lines += [f"  {group:<12}{', '.join(options)}" for group, options in groups().items()]
    lines += ["", "flags:", *(f"  {flag:<26}{text}" for flag, text in FLAGS.items())]
    lines += ["", "Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted."]
    return "\n".join(lines)


# Flags that are handed on. Of them, FLAGS lists what is of use here.
HYDRA_FLAGS = (
    *("-m", "--multirun", "-c", "--cfg", "--resolve", "-p", "--package", "-cd", "--config-dir", "-i", "--info"),
    *("-sc", "--shell-completion", "--shell_completion"),
)

FLAGS = {
    "-m, --multirun": "one job for every combination: -m loss.term.kd.temperature=1,2,4",
    "--cfg": "print the composed config and leave; --resolve fills in what it refers to",
    "--from RUN": "start from the overrides of an earlier run",
    "--config-dir DIR": "look for config groups in DIR too",
    "--debug": "show the traceback of bad input as well",
    "-sc install=bash|zsh|fish": 'shell completion: eval "$(potstill -sc install=bash)"',
    "--version": "print the version",
}
