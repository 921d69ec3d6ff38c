"""A task for sweeps in other processes: writes down that it ran, waits, returns. Arguments are Hydra's."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path=None, config_name=None)
def main(config: DictConfig) -> float:
    job = HydraConfig.get()
    entry = {"number": int(job.sweep.subdir), "x": config.x, "process": os.getpid(), "end": "begun"}
    log = Path(job.sweep.dir) / "log.jsonl"
    for end in ("begun", "done"):
        with log.open("a") as file:
            file.write(json.dumps({**entry, "end": end}) + "\n")
        if end == "begun":
            time.sleep(config.get("seconds", 0.0))
    return (config.x - 0.3) ** 2


if __name__ == "__main__":
    quiet = ["hydra/hydra_logging=none", "hydra/job_logging=none", "hydra.output_subdir=null"]
    sys.argv[1:] = ["-m", "hydra/sweeper=optuna", "+x=interval(0,1)", *quiet, *sys.argv[1:]]
    main()
