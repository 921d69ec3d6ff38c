"""What may be configured: names, types and defaults. YAML in `conf/` fills these; `validate` refuses the rest.

Nodes typed `dict[str, Any]` hold a `_target_`: their keys are checked against the signature of what they build.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class RunConfig:
    experiment: str = MISSING  # groups runs: directory and W&B group
    name: str = MISSING
    dir: str = MISSING


@dataclass
class ModelConfig:
    """Fields the teacher and the student share."""

    path: str | None = None  # hub name or local directory
    revision: str | None = None  # hub: commit, tag or branch; a commit is what can be repeated
    config: dict[str, Any] = field(
        default_factory=dict
    )  # without weights: keys of a transformers config, `model_type` too
    dtype: str = "float32"
    attn_implementation: str | None = None
    trust_remote_code: bool = False


@dataclass
class TeacherConfig(ModelConfig):
    path: str | None = MISSING  # null, for no teacher, has to be said: teacher=none
    remember: bool = (
        False  # keep each example's logits in memory, so that the teacher is paid for once, not once an epoch
    )


@dataclass
class StudentConfig(ModelConfig):
    init: str = "random"  # random | pretrained | teacher_layers
    layers: Any = "uniform"  # teacher_layers: uniform | first | last | a list of layer numbers
    tokenizer: str | None = None  # hub name or directory; default: the student's own, the data's, or the teacher's


@dataclass
class LossConfig:
    term: dict[str, Any] = field(default_factory=dict)


@dataclass
class ColumnsConfig:
    """Which column of the source holds what. A task reads those it knows."""

    text: str | None = None
    text_pair: str | None = None
    image: str | None = None
    label: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None


@dataclass
class DataConfig:
    task: str = MISSING  # text_classification | image_classification | causal_lm
    source: dict[str, Any] = field(default_factory=dict)
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    slices: list[str] = field(default_factory=list)  # columns whose values name the slices of evaluation
    label_names: list[str] | None = None  # default: every label that occurs, sorted
    validation_fraction: float = 0.1  # of the training examples, where the source has no validation split
    test_fraction: float = 0.2  # of all examples, where the source has no test split
    labels_per_class: int | None = None  # keep the gold label of only so many training examples a class
    batch_size: int = 64  # the global batch: examples per optimizer step, over all ranks and micro-batches
    max_length: int = 128  # tokens; longer examples are cut
    length_grouping: bool = False


@dataclass
class OptimConfig:
    optimizer: dict[str, Any] = field(default_factory=dict)
    schedule: str = "cosine"  # constant | linear | cosine, after the warm-up
    warmup_fraction: float = 0.1  # of all steps
    max_steps: int | None = None
    max_epochs: int | None = None
    clip_norm: float | None = 1.0


@dataclass
class HardwareConfig:
    accelerator: str = "auto"
    devices: Any = 1
    strategy: str = "auto"
    precision: str = "32-true"
    compile: bool = False
    micro_batch_examples: int | None = None
    micro_batch_tokens: int | None = None  # padded tokens
    num_workers: int = 0


@dataclass
class TrainConfig:
    run: RunConfig = field(default_factory=RunConfig)
    seed: int = 0
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    logger: dict[str, Any] | None = None
    callbacks: dict[str, Any] = field(default_factory=dict)
    validate_every: int | None = None  # optimizer steps; default: once an epoch
    log_every: int = 10  # optimizer steps
    limit_batches: int | None = None  # of training, validation and test each; for debugging


@dataclass
class EvaluateConfig:
    run: str = MISSING  # directory of a training run, or of a recipe's run
    baseline: str | None = None  # directory of the run trained without the teacher; a recipe's run knows its own
    output: str = MISSING  # where evaluation.json is written
    logger: dict[str, Any] | None = None


@dataclass
class StageConfig:
    command: str = MISSING  # train | evaluate
    overrides: list[str] = field(default_factory=list)  # `{name}` stands for the directory of the earlier stage `name`
    extra: list[str] = field(default_factory=list)  # the user's own, after all others


@dataclass
class RecipeConfig:
    stages: dict[str, StageConfig] = field(default_factory=dict)


@dataclass
class RecipeRunConfig:
    dir: str = MISSING


@dataclass
class RecipeCommandConfig:
    run: RecipeRunConfig = field(default_factory=RecipeRunConfig)
    seed: int = 0
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    logger: dict[str, Any] | None = None
    debug_preset: str | None = None  # an option of the group debug; by that name Hydra would apply it to the recipe
