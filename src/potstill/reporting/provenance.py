"""What a training run left on record, for those who describe its student: the report, the model card, the BOM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from potstill.nested import flat
from potstill.tracking.manifest import manifest_of

WEIGHTS = "*.safetensors"


@dataclass(frozen=True)
class Provenance:
    """directory: of the run. config: dotted key -> value, as the run resolved it."""

    directory: Path
    manifest: dict[str, Any]
    config: dict[str, Any]
    overrides: list[str]

    @property
    def name(self) -> str:
        """The run's; of a student in a recipe's directory with that directory's name before it."""
        return str(self.config.get("run.name") or self.directory.resolve().name)

    @property
    def student(self) -> Path:
        return self.directory / "student"

    @property
    def weights(self) -> list[Path]:
        """The files that hold the student's weights."""
        return sorted(self.student.glob(WEIGHTS))

    @property
    def teachers(self) -> dict[str, str]:
        """Config key -> directory or hub name, of every teacher the run names."""
        keys = ("teacher.path", *(key for key in self.config if key.startswith("teacher.members.")))
        return {key: str(self.config[key]) for key in keys if key.endswith(".path") and self.config.get(key)}

    def command(self) -> str:
        """The run again, from its directory."""
        return f"potstill train --from {self.directory}"


def read_provenance(run: Path) -> Provenance:
    """What there is of it: a file that is missing is empty."""
    config, overrides = _read(run / "config.yaml"), _read(run / "overrides.yaml")
    return Provenance(run, manifest_of(run), flat(config or {}), [str(text) for text in overrides or []])


def _read(file: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else None
