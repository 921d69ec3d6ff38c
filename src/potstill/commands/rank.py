"""One rank of a training, in a process of its own: `potstill train` runs `python -m potstill.commands.rank FOLDER`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from omegaconf import OmegaConf

from potstill.commands.train import train_here
from potstill.config.rerun import read_config
from potstill.hardware.launch import as_rank
from potstill.hardware.place import launched_place


def main(folder: Path) -> None:
    place, config = launched_place(), read_config(folder)
    assert place is not None
    _log_to(Path(config.run.dir) / "train.log", is_first=place.rank == 0)
    overrides = OmegaConf.to_container(OmegaConf.load(folder / "overrides.yaml"))
    train_here(config, overrides, place)  # type: ignore[arg-type]


def _log_to(file: Path, *, is_first: bool) -> None:
    """As conf/hydra/job_logging has it; the other ranks speak up only for errors."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if is_first:
        handlers.append(logging.FileHandler(file, delay=True))
        handlers[1].setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
    logging.basicConfig(format="%(message)s", level=logging.INFO if is_first else logging.ERROR, handlers=handlers)


if __name__ == "__main__":
    with as_rank():
        _, folder_of_launcher, *sys.argv = sys.argv  # the rest is the user's command, for the record
        main(Path(folder_of_launcher))
