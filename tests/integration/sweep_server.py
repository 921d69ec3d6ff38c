"""A W&B server that leads sweeps: it searches and stops with W&B's own package `sweeps`, and takes the agents' runs."""

from __future__ import annotations

import json
import warnings
from typing import Any

import yaml

from tests.tracking.artifact_server import WHERE, ArtifactServer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # sweeps 0.2.0, 2026-11: written for pydantic 1
    import sweeps


def sent(point: Any) -> dict[str, Any]:
    """A point of the search as it reaches an agent: its numbers are plain ones."""
    return json.loads(json.dumps(point, default=lambda number: number.item()))


class SweepServer(ArtifactServer):
    """config: of the one sweep, as `wandb sweep` sent it. runs: by id, what was proposed and became of it.

    Runs come one after another. One is stopped when early termination says so of its history.
    """

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, Any] = {}
        self.runs: dict[str, sweeps.SweepRun] = {}
        self.configs: dict[str, dict[str, Any]] = {}  # of the runs, as they sent them
        self.groups: dict[str, str] = {}

    def answer(self, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        if name == "UpsertSweep":
            self.config = yaml.safe_load(variables["config"])
            return {"upsertSweep": {"sweep": {"name": "sweep", "project": WHERE}, "configValidationWarnings": []}}
        if name == "SweepWithRuns":
            sweep = {"id": "s", "name": "sweep", "state": "RUNNING", "config": yaml.safe_dump(self.config)}
            return {"project": {"sweep": {**sweep, "runs": {"edges": []}}}}
        if name == "CreateAgent":
            return {"createAgent": {"agent": {"id": "a"}}}
        if name == "Heartbeat":
            commands = self._commands(set(json.loads(variables["runState"])))
            return {"agentHeartbeat": {"agent": {"id": "a"}, "commands": json.dumps(commands)}}
        if name == "UpsertBucket":
            self._keep(variables)
        return super().answer(name, variables)

    def _commands(self, running: set[str]) -> list[dict[str, Any]]:
        for run_id, run in self.runs.items():
            run.state = sweeps.RunState.running if run_id in running else sweeps.RunState.finished
            run.history = self.history.get(run_id, [])
        if running:
            stopped = (
                sweeps.stop_runs(self.config, list(self.runs.values())) if "early_terminate" in self.config else []
            )
            return [{"type": "stop", "run_id": run.name} for run in stopped]
        run_id = f"run{len(self.runs)}"
        proposed = sweeps.next_run(self.config, list(self.runs.values()))
        if proposed is None:
            return [{"type": "exit"}]
        point = sent(proposed.config)
        self.runs[run_id] = sweeps.SweepRun(name=run_id, config=point, state=sweeps.RunState.running)
        return [{"type": "run", "run_id": run_id, "program": self.config["program"], "args": point}]

    def _keep(self, variables: dict[str, Any]) -> None:
        run_id = variables["name"]
        if variables.get("config"):
            sent = json.loads(variables["config"])
            known = self.configs.setdefault(run_id, {})
            known |= {key: entry["value"] for key, entry in sent.items()}
        if variables.get("groupName"):
            self.groups[run_id] = variables["groupName"]
