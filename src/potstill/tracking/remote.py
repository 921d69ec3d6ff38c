"""Runs as W&B keeps them, for a comparison: the only part of it that needs the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import wandb
from wandb.errors import AuthenticationError, CommError, UsageError

from potstill.errors import StoppedError, UserError
from potstill.evaluation.between_runs import Evaluated
from potstill.nested import flat
from potstill.sweeps.evaluated import read_evaluated
from potstill.sweeps.results import Result, choices_of, decisive, numbers
from potstill.tracking.lineage import EVALUATION
from potstill.tracking.login import is_logged_in

LOOK = "Look for typos, at the login and at the network."
# W&B's word -> ours, where the run's own manifest has none
STATES = {"finished": "finished", "running": "running", "pending": "running", "killed": "killed", "crashed": "killed"}


def remote_results(place: str) -> list[Result]:
    """Every training run of `ENTITY/PROJECT[/GROUP]`.

    Raises UserError where there is none, or no such project, and `StoppedError` where W&B cannot be reached.
    """
    entity, _, rest = place.partition("/")
    project, _, group = rest.partition("/")
    if not (entity and project):
        problem = "names no project of W&B."
        raise UserError("paths", f"wandb:{place}", problem, "Write it as wandb:ENTITY/PROJECT or with /GROUP")
    if not is_logged_in():
        raise UserError("paths", f"wandb:{place}", "cannot be read without a login.", "Log in: wandb login")
    filters = {"group": group} if group else {}
    try:
        found = wandb.Api().runs(f"{entity}/{project}", filters=filters, lazy=False)
        runs = [run for run in found if "manifest" in run.config]  # evaluations have none
    except (UsageError, AuthenticationError, ValueError) as error:
        # ValueError: the client finds no such project
        raise UserError("paths", f"wandb:{place}", f"cannot be read: {error}", LOOK) from error
    except (CommError, OSError) as error:
        raise StoppedError(f"W&B could not be asked for wandb:{place}: {error}") from error
    if not runs:
        raise UserError("paths", f"wandb:{place}", "holds no training run.", "Name another project or group.")
    return [result_of(run) for run in runs]


def remote_evaluation(place: str) -> Evaluated:
    """The evaluation that a run of W&B logged, by `ENTITY/PROJECT/runs/ID`. Raises UserError where it logged none."""
    key = f"wandb:{place}"
    if not is_logged_in():
        raise UserError("paths", key, "cannot be read without a login.", "Log in: wandb login")
    try:
        return evaluation_of(wandb.Api().run(place.replace("/runs/", "/")), key)
    except (UsageError, AuthenticationError, ValueError) as error:
        raise UserError("paths", key, f"cannot be read: {error}", LOOK) from error
    except (CommError, OSError) as error:
        raise StoppedError(f"W&B could not be asked for {key}: {error}") from error


def evaluation_of(run: Any, place: str) -> Evaluated:
    """run: as `wandb.Api().run` gives it; its artifact of type `evaluation` is read from a temporary folder."""
    found = [artifact for artifact in run.logged_artifacts() if artifact.type == EVALUATION]
    if not found:
        fix = "Name the run that `potstill evaluate` logged; its name ends in -evaluate."
        raise UserError("paths", place, "logged no evaluation.", fix)
    with TemporaryDirectory() as folder:
        found[-1].download(root=folder)
        return read_evaluated(Path(folder), run.name, place)


def result_of(run: Any) -> Result:
    """run: as `wandb.Api().runs` yields it, with `name`, `url`, `state`, `config` and `summary_metrics`."""
    config: dict[str, Any] = {name: value for name, value in run.config.items() if name != "_wandb"}
    manifest: Mapping[str, Any] = config.pop("manifest", None) or {}
    said = manifest.get("status", "running")
    status = said if said != "running" else STATES.get(run.state, "failed")
    directory = flat(config).get("run.dir")
    swept = (config.get("run") or {}).get("swept") or {}
    return Result(
        name=run.name,
        place=run.url,
        status=status,
        reason=None if status == "finished" else f"see {run.url}",
        overrides=[f"{key}={value}" for key, value in swept.items()],
        choices=choices_of(config, []),
        config=decisive(config, [directory] if directory else []),
        metrics=numbers({**manifest.get("metrics", {}), **run.summary_metrics}),
        data=manifest.get("validated_on"),
    )
