"""What an evaluation rests on: runs with their manifests, the teacher, the config, and how to do it again."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from potstill import __version__
from potstill.commands.assemble import Source
from potstill.commands.train import teacher_fingerprint
from potstill.config.rerun import read_config
from potstill.config.schema import AnswersConfig, EvaluateConfig, TrainConfig
from potstill.tracking.manifest import manifest_of
from potstill.tracking.secrets import redact

KEPT = ("status", "started_at", "git", "versions", "fingerprints", "licences", "licence_records", "parents", "command")
SHOWN = ("teacher", "student", "loss", "data", "optim")  # of the student's config


def provenance(options: EvaluateConfig, config: TrainConfig, runs: dict[str, Path], source: Source) -> dict[str, Any]:
    resolved = asdict(config)
    return {
        "potstill": __version__,
        "rerun": rerun(options),
        "runs": {"student" if key == "run" else key: _about(run) for key, run in runs.items()},
        "teacher": teacher_fingerprint(config),
        "num_examples": source.data.split_sizes,
        "config": redact({name: resolved[name] for name in SHOWN}),
    }


def rerun(options: EvaluateConfig) -> str:
    """The command that makes this evaluation again, as far as options that decide it go."""
    words = ["potstill", "evaluate", f"run={options.run}"]
    words += [f"baseline={options.baseline}"] if options.baseline else []
    words += [f"bar={options.bar.name or 'none'}"]
    words += [f"teacher_path={options.teacher_path}"] if options.teacher_path else []
    usual = vars(AnswersConfig())
    changed = {name: value for name, value in vars(options.generate).items() if value != usual[name]}
    words += [f"generate.{name}={'null' if value is None else value}" for name, value in changed.items()]
    words += ["quantised=true"] if options.quantised else []
    words += [f"+models.{name}={path}" for name, path in options.models.items()]
    words += [f"seeds=[{','.join(options.seeds)}]"] if options.seeds else []
    return shlex.join(words)


def _about(run: Path) -> dict[str, Any]:
    manifest, config = manifest_of(run), read_config(run)
    told = {name: manifest.get(name) for name in KEPT}
    return {"path": str(run), "seed": config.seed, "experiment": config.run.experiment, **told}
