"""What may be configured: names, types and defaults. YAML in `conf/` fills these; `validate` refuses the rest.

Nodes typed `dict[str, Any]` hold a `_target_`: their keys are checked against the signature of what they build.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from potstill.evaluation.bar import BarConfig

NO_PACKING_WITH = ("compile", "activation_checkpointing")  # options of HardwareConfig, for the student


@dataclass
class RunConfig:
    experiment: str = MISSING  # groups runs: directory and W&B group
    name: str = MISSING
    dir: str = MISSING
    resume: bool = False  # go on with the run in `dir`; the flag --resume sets it
    allow_changed: list[str] = field(default_factory=list)  # keys, or groups of keys, that may differ from that run's
    # Of a job of a sweep, which sets them; not for a user to set.
    sweep: str | None = None  # its name, and the W&B group
    swept: dict[str, Any] = field(default_factory=dict)  # what varies: dotted key -> this job's value
    trial: dict[str, Any] = field(default_factory=dict)  # of an Optuna study: storage, study_name, number
    choices: dict[str, str] = field(default_factory=dict)  # config group -> option


@dataclass
class ModelConfig:
    """Fields the teacher and the student share."""

    path: str | None = None  # hub name or local directory
    revision: str | None = None  # hub: commit, tag or branch; a commit is what can be repeated
    config: dict[str, Any] = field(
        default_factory=dict
    )  # without weights: keys of a transformers config, `model_type` too
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    pooling: str = "mean"  # embedding: cls | mean | last: which of a text's positions its vector is made of
    normalise: bool = False  # embedding: to length 1


@dataclass
class MemberConfig(ModelConfig):
    """One of several teachers, a node of `teacher.members`."""

    dtype: str = "float32"
    weight: float = 1.0  # in proportion to the others'
    routes: list[str] | None = None  # combine=route: the values that are its own; default: its name


@dataclass
class CacheConfig:
    """Signals kept on disk, for other epochs and other runs."""

    dir: str | None = None  # directory that runs share; null: nothing is kept
    write: bool = True  # keep what is asked on the way; false: refuse a teacher that is not there yet
    form: str = "exact"  # exact | top_k | sampled: all of it, or of a language model some classes of each token
    dtype: str | None = None  # exact: float32 | bfloat16 | float16 to round to; null: as the teacher gives it
    top_k: int = 64  # top_k: classes of a token
    top_p: float = 1.0  # top_k: fewer, where these have this probability together
    values: str = "float16"  # top_k: float16 | uint8, of log-probabilities
    draws: int = 12  # sampled: of a token


@dataclass
class TeacherConfig(ModelConfig):
    path: str | None = MISSING  # null, for no teacher, has to be said: teacher=none
    dtype: str = "float32"  # float32 | bfloat16 | float16: of its weights and of all it computes
    # Keep each example's logits or embeddings in memory, so that the teacher is paid for once, not once an epoch.
    remember: bool = False
    compile: bool = False
    cache: CacheConfig = field(default_factory=CacheConfig)
    members: dict[str, Any] = field(default_factory=dict)  # several teachers: name -> the keys of MemberConfig
    combine: str = "probabilities"  # probabilities | losses | route: what several teachers are to a term
    route_by: str | None = None  # combine=route: one of data.slices, whose value says which teacher an example has

    @property
    def models(self) -> dict[str, Any]:
        """The options of each model, a TeacherConfig or MemberConfig, by its key in the config."""
        if self.members:
            return {f"teacher.members.{name}": MemberConfig(**node) for name, node in self.members.items()}
        return {"teacher": self} if self.path or self.config else {}


@dataclass
class StudentConfig(ModelConfig):
    init: str = "random"  # random | pretrained | teacher_layers
    layers: Any = "uniform"  # teacher_layers: uniform | first | last | a list of layer numbers
    tokenizer: str | None = None  # hub name or directory; default: the student's own, the data's, or the teacher's

    @property
    def dtype(self) -> str:
        """Of its weights as they are loaded; hardware.precision says in what they train."""
        return "float32"


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
    anchor: str | None = None
    positive: str | None = None
    negative: str | None = None  # text, or a list of equally many texts
    score: str | None = None  # of a pair: how alike anchor and positive are, on any scale
    weight: str | None = None  # how much an example counts in training, beside the others
    logprobs: str | None = None  # causal_lm: what the endpoint that wrote the completion says of its tokens, as JSON
    group: str | None = None  # examples of one value stay on one side of the splits that the source lacks


@dataclass
class DataConfig:
    task: str = MISSING  # text_classification | image_classification | causal_lm | embedding
    source: dict[str, Any] = field(default_factory=dict)
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    slices: list[str] = field(default_factory=list)  # columns whose values name the slices of evaluation
    balance_by: str | None = (
        None  # one of slices: each of its values counts alike in training, however many rows it has
    )
    label_names: list[str] | None = None  # default: every label that occurs, sorted
    validation_fraction: float = 0.1  # of the training examples, where the source has no validation split
    test_fraction: float = 0.2  # of all examples, where the source has no test split
    keep_near_together: bool = False  # nearly equal texts on one side of the splits that the source lacks
    drop_copies: str | None = None  # exact | near: training and validation examples that stand in test go; test stays
    labels_per_class: int | None = None  # keep the gold label of only so many training examples a class
    batch_size: int = 64  # the global batch: examples per optimizer step, over all ranks and micro-batches
    max_length: int = 128  # tokens; longer examples are cut
    length_grouping: bool = False
    pair_by_label: bool = False  # embedding: train on each text with another of its label, drawn anew for every epoch


@dataclass
class OptimConfig:
    optimizer: dict[str, Any] = field(default_factory=dict)
    schedule: str = "cosine"  # constant | linear | cosine, after the warm-up
    warmup_fraction: float = 0.1  # of all steps
    max_steps: int | None = None
    max_epochs: int | None = None
    clip_norm: float | None = 1.0
    on_nonfinite: str = "stop"  # stop | skip: what a loss or gradient does that is not finite
    max_skipped: int = 10  # steps; one more, and the run stops


@dataclass
class HardwareConfig:
    accelerator: str = "auto"
    devices: Any = 1  # of this node: a number, or auto for all there are
    num_nodes: Any = 1  # auto: as many as torchrun or srun says
    strategy: str = "auto"  # auto | ddp | fsdp
    precision: str = "32"  # 32 | bf16-mixed | bf16-true | 16-mixed; the teacher has its own, teacher.dtype
    tf32: bool = False  # float32 matrix products in TF32, on accelerators that have it
    compile: bool = False
    fused_head: bool = True  # language models: logits a chunk of rows at a time, where the terms allow it
    logits_dtype: str = "float32"  # of these chunks: float32 | bfloat16, which is fast and less exact
    packing: str = "auto"  # auto | on | off: compute no padding in a text model's layers
    packed_attention: str = "groups"  # of packed texts: groups, one call of SDPA a length; flex, one kernel for all
    activation_checkpointing: bool = False  # keep a block's input only, and run it again in the backward pass
    shard_teacher: bool = False  # fsdp: the teacher's parameters over the ranks as well
    cpu_offload: bool = False  # fsdp: parameters and optimizer in CPU memory
    micro_batch_examples: int | None = None
    micro_batch_tokens: int | None = None  # what padding is computed counts
    num_workers: int | None = None  # processes that prepare batches; null: none on CPUs, a few beside an accelerator


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
    returns: list[str] = field(default_factory=lambda: ["val/loss"])  # metrics that a sweep gets from this run


@dataclass
class AnswersConfig:
    """What causal language models write to the test set's prompts; of data with prompts and completions."""

    limit: int | None = 200  # prompts, the first by the hash of their content; null: all; 0: nothing is written
    max_new_tokens: int = 256
    batch_size: int = 16  # prompts at a time
    answer: str | None = None  # number | text | none: judged by; null: number where every reference has a ####
    form: str | None = (
        None  # regular expression of a well-formed answer; null: #### and a number, where it is judged so
    )


@dataclass
class EvaluateConfig:
    run: str = MISSING  # directory of a training run, or of a recipe's run
    baseline: str | None = None  # directory of the run trained without the teacher; a recipe's run knows its own
    output: str = MISSING  # where evaluation.json is written
    bar: BarConfig = field(default_factory=BarConfig)
    teacher_path: str | None = (
        None  # hub name or directory: the teacher of a student that was trained without its weights
    )
    generate: AnswersConfig = field(default_factory=AnswersConfig)
    quantised: bool = False  # the student in 8 bits as one more column
    models: dict[str, str] = field(default_factory=dict)  # further columns: name -> hub name, directory or run
    seeds: list[str] = field(default_factory=list)  # runs, evaluated before, that differ in their seed alone
    ledger: str = "evaluations.jsonl"  # where every opening of a test set is written down
    mixes: list[Any] = field(default_factory=list)  # speed is measured under: [examples a request, requests under way]
    logger: dict[str, Any] | None = None


@dataclass
class CompareConfig:
    paths: list[str] = MISSING  # sweeps, runs, or wandb:ENTITY/PROJECT[/GROUP]
    metric: str | None = None  # that runs are ranked by; default: val/accuracy where there is one, else val/loss
    higher_is_better: bool | None = None  # of a metric whose name does not say it
    cost: str | None = None  # that quality is held against; default: cost/parameters
    output: str | None = None  # directory of comparison.html and comparison.json; default: the path, where it is one
    html: bool = True


@dataclass
class AuditConfig:
    data: DataConfig | None = None  # default: that of the run
    run: str | None = None  # directory of a training run, or of a recipe's run: its models are looked at, too
    output: str = MISSING  # directory of audit.json and the tables
    production: str | None = None  # file with the data's columns: what is asked in production; default: the test split
    teacher_label: str | None = None  # column of the data with what a teacher said of each example
    encoder: str | None = None  # directory or hub name: distances between its embeddings; default: between TF-IDF
    jaccard: float = 0.8  # of character 4-grams: from here on two texts are near-duplicates
    ngram: int | None = None  # words of a shared run; default: by the length of the test's texts
    logger: dict[str, Any] | None = None


@dataclass
class StageConfig:
    command: str = MISSING  # train | cache | evaluate | mine | gain | generate
    overrides: list[str] = field(default_factory=list)  # `{name}` stands for the directory of the earlier stage `name`
    extra: list[str] = field(default_factory=list)  # the user's own, after all others


@dataclass
class RecipeConfig:
    stages: dict[str, StageConfig] = field(default_factory=dict)
    rounds: int = 0  # how often the stages of `round` are done, at most: a gain may say that it is enough
    # In overrides, `{name}` is the latest stage of that name, `{name_before}` the one before it, `{name_first}` the
    # first, and `{name_all}` a list of all.
    round: dict[str, StageConfig] = field(default_factory=dict)
    last: dict[str, StageConfig] = field(default_factory=dict)  # after the last round


@dataclass
class RecipeRunConfig:
    dir: str = MISSING


@dataclass
class RecipeCommandConfig:
    run: RecipeRunConfig = field(default_factory=RecipeRunConfig)
    seed: int = 0
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    bar_preset: str | None = None  # an option of the group bar, for the stages that evaluate; null: the recipe's own
    logger: dict[str, Any] | None = None
    debug_preset: str | None = None  # an option of the group debug; by that name Hydra would apply it to the recipe
