"""Which data and models a W&B run was made from and what came of it: data -> teacher -> student -> evaluation.

The artifacts of a run are its lineage in W&B. Their names are in its config as well, as `lineage.inputs` and
`lineage.outputs`: offline a run can log artifacts, but not say which it used.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning.loggers import Logger

from potstill.data.module import DataModule
from potstill.tracking.logger import wandb_runs
from potstill.tracking.secrets import redact

log = logging.getLogger(__name__)

EVALUATION = "evaluation"  # type of its artifact
BESIDE = ("items.jsonl", "report.html", "ml-bom.json")
MAX_WAIT_S = 60  # for the server to take the description of the data


def log_inputs(
    loggers: Iterable[Logger], data: DataModule, source: Mapping[str, Any], models: Iterable[str | Path | None] = ()
) -> None:
    """The run uses `data`, described in an artifact of its own, and the artifacts of those `models` that are ours.

    source: the config of where the data came from. models: directories or hub names, as in the config; one that a W&B
        run trained, `<run>/student`, has an artifact; others have none.
    Equal data has one artifact, by its fingerprint. An input that W&B does not take, or does not have (its run was
    never uploaded, its student is larger than `artifact_max_mb`), is named in one warning.
    """
    about = {
        "task": data.task,
        "fingerprint": data.fingerprint,
        "num_examples": data.split_sizes,
        "source": redact(source),
    }
    students = [name for model in models if (name := student_artifact(model))]
    for run in wandb_runs(loggers):
        described = _described(about)
        _note(run, "inputs", [described.name, *students])
        uses = {name: partial(_use, run, name) for name in students}
        missing = _failures({described.name: partial(_use_described, run, described), **uses})
        if run.offline:
            log.debug("Offline: what the run used is in its config only, as lineage.inputs.")
        if missing:
            log.warning("W&B does not link these inputs to the run; its config names them: %s", "; ".join(missing))


def log_output(run: wandb.Run, artifact: wandb.Artifact) -> None:
    """Log `artifact` as made by `run`. Where W&B does not take it, that is one warning."""
    _note(run, "outputs", [artifact.name])
    if failures := _failures({artifact.name: partial(run.log_artifact, artifact)}):
        log.warning("W&B does not take an artifact: %s", failures[0])


def log_evaluation_file(loggers: Iterable[Logger], path: str | Path) -> None:
    """evaluation.json, and what of its kin lies beside it, as an artifact of type `evaluation`."""
    for run in wandb_runs(loggers):
        artifact = wandb.Artifact(f"evaluation-{run.id}", type=EVALUATION)
        for file in (Path(path), *(Path(path).with_name(name) for name in BESIDE)):
            if file.is_file():
                artifact.add_file(str(file), name=file.name)
        log_output(run, artifact)


def student_artifact(model: str | Path | None) -> str | None:
    """The name of the artifact that the W&B run of `<run>/student` logs; None for any other model."""
    identity = Path(model).parent / "wandb" / "train.json" if model and Path(model).name == "student" else None
    run_id = json.loads(identity.read_text())["id"] if identity and identity.exists() else None
    return f"student-{run_id}" if run_id else None


def _described(about: Mapping[str, Any]) -> wandb.Artifact:
    artifact = wandb.Artifact(f"data-{about['fingerprint']}", type="dataset", metadata=dict(about))
    with artifact.new_file("data.json") as file:
        json.dump(about, file, indent=2)
    return artifact


def _use_described(run: wandb.Run, artifact: wandb.Artifact) -> None:
    run.log_artifact(artifact)
    if not run.offline:
        run.use_artifact(artifact.wait(MAX_WAIT_S))


def _use(run: wandb.Run, name: str) -> None:
    if not run.offline:
        run.use_artifact(f"{name}:latest", type="model")


def _failures(attempts: Mapping[str, Callable[[], Any]]) -> list[str]:
    """Those of the named attempts that failed, with their reason. A training counts more than what W&B knows of it."""
    failures = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except Exception as error:  # the client's own, its service's, and those of a server that answers otherwise
            failures.append(f"{name} ({str(error).splitlines()[0] if str(error) else type(error).__name__})")
    return failures


def _note(run: wandb.Run, side: str, names: list[str]) -> None:
    """Add `names` to the run's config; a run that goes on has them already."""
    known = {"inputs": [], "outputs": [], **run.config.get("lineage", {})}
    run.config.update({"lineage": {**known, side: list(dict.fromkeys([*known[side], *names]))}}, allow_val_change=True)
