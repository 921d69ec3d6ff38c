"""Every file of conf/ composes with every debug preset and builds what it names. A new file is found by listing."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from potstill.commands.assemble import assemble_objective
from potstill.commands.check import check_parts
from potstill.commands.fit import make_trainer
from potstill.commands.generation import filters
from potstill.commands.stages import plan
from potstill.config.build import build, check_arguments, locate
from potstill.config.compose import composed, typed
from potstill.config.mine_schema import MineConfig
from potstill.config.paths import CONF, groups
from potstill.config.schema import EvaluateConfig, RecipeCommandConfig, TrainConfig
from potstill.config.text_schema import GenerateConfig
from potstill.config.text_validate import validate_generation
from potstill.errors import UserError
from potstill.models.architecture import architecture_of
from potstill.models.load import load_student, load_teacher
from potstill.models.task import TASKS
from potstill.models.tokenizers import load_tokenizer
from potstill.tracking.logger import finish
from tests.config.resolved import resolved
from tests.losses.registry import EMBEDDING_TERMS

PRESETS = [None, *(pytest.param(preset, marks=pytest.mark.thorough) for preset in groups()["debug"])]
WRITERS = ("clinc150_text", "clinc150_writer", "gsm8k_text")
OF_GENERATE = [("teacher", option) for option in ("openai_compatible", "local_text", "vllm", *WRITERS)]
OF_GENERATE += [("generation", option) for option in groups()["generation"]]
CHOICES = [
    (group, option) for group, options in groups().items() for option in options if group not in ("recipe", "bar")
]
IN_TRAIN = [choice for choice in CHOICES if choice not in OF_GENERATE and choice[0] != "pool"]
MISSING = {  # a stand-in for each value that a file leaves to the user, by the last part of its key
    "path": "{model}",
    "train": "{data}",
    "name": "owner/name",
    "student_tap": "classifier",
    "teacher_tap": "classifier",
}

WRITER = ["teacher.endpoint.base_url=http://x", "teacher.model=x", "teacher.revision='1'"]
LEFT_TO_THE_USER = {"loop_generated": [f"recipe.round.write.extra={json.dumps(WRITER)}"]}


@pytest.fixture(scope="module")
def stand_ins(saved, tmp_path_factory) -> dict[str, str]:
    data = tmp_path_factory.mktemp("data") / "train.jsonl"
    data.write_text("\n".join(json.dumps({"text": f"eel {n}", "label": "no" if n % 2 else "yes"}) for n in range(50)))
    return {"model": saved(), "data": str(data)}


@pytest.fixture(autouse=True)
def _shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_SHARED", os.environ.get("POTSTILL_SHARED", "shared"))


def overrides_for(group: str, option: str, stand_ins: dict[str, str]) -> list[str]:
    """The option, and what it leaves to the user."""
    if group == "loss/term":
        return overrides_of_terms([option], stand_ins)
    if group == "loss":
        return [f"loss={option}", *overrides_of_terms(terms_of(option), stand_ins)[1:]]
    chosen = [f"{group}={option}"]
    if group == "experiment":
        return [*chosen, *(f"{key}={fill(key, stand_ins)}" for key in left_open(option))]
    config = OmegaConf.load(CONF / group / f"{option}.yaml")
    chosen += [f"{group}.{key}={fill(key, stand_ins)}" for key in unset(config)]
    return [
        *chosen,
        *(["teacher=pretrained", f"teacher.path={stand_ins['model']}"] if option == "teacher_layers" else []),
    ]


@functools.cache
def left_open(experiment: str) -> list[str]:
    return [key for key in unset(composed("train", [f"experiment={experiment}"])) if not key.startswith("run.")]


def overrides_of_terms(terms: list[str], stand_ins: dict[str, str]) -> list[str]:
    overrides = [f"loss/term=[{','.join(terms)}]", "teacher=pretrained", f"teacher.path={stand_ins['model']}"]
    overrides += ["data.task=embedding"] if set(terms) & set(EMBEDDING_TERMS) else []
    for term in terms:
        node = OmegaConf.load(CONF / "loss" / "term" / f"{term}.yaml")
        missing = [*unset(node), *(key for key in ("student_tap", "teacher_tap") if key in node)]
        overrides += [f"loss.term.{term}.{key}={fill(key, stand_ins)}" for key in missing]
    return overrides


def terms_of(loss: str) -> list[str]:
    return [name for entry in OmegaConf.load(CONF / "loss" / f"{loss}.yaml").defaults for name in entry.get("term", [])]


def unset(config: Any, prefix: str = "") -> list[str]:
    """Keys whose value is `???`. OmegaConf.missing_keys would resolve references to other groups."""
    node = OmegaConf.to_container(config, resolve=False) if OmegaConf.is_config(config) else config
    if not isinstance(node, dict):
        return [prefix[:-1]] if node == "???" else []
    return [key for name, inner in node.items() for key in unset(inner, f"{prefix}{name}.")]


def fill(key: str, stand_ins: dict[str, str]) -> str:
    return MISSING[key.rpartition(".")[2]].format(**stand_ins)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("group", "option"), IN_TRAIN)
def test_every_option_composes_with_every_preset(group, option, preset, stand_ins):
    overrides = overrides_for(group, option, stand_ins)
    config = resolved([*overrides, f"debug={preset}"] if preset and group != "debug" else overrides)
    if preset and group != "debug":
        assert config.run.experiment == "debug"
        assert config.logger is None or group == "logger"


@pytest.mark.parametrize(("group", "option"), OF_GENERATE)
def test_every_option_of_generate_composes(group, option):
    place = "path=x" if option in ("local_text", "vllm", "clinc150_writer", "gsm8k_text") else "base_url=http://x"
    overrides = ["data.source.train=x", "teacher.model=x", "teacher.revision=1", f"teacher.endpoint.{place}"]
    overrides += [f"{group}={option}", *(["generation.labels=[a,b]"] if option == "label" else [])]
    config = typed(composed("generate", overrides), GenerateConfig)
    validate_generation(config)
    given = {name: value for name, value in config.teacher.endpoint.items() if name != "_target_"}
    supplied = {"api", "request_s", "max_connections"} if "base_url" in given else set()
    check_arguments(locate(config.teacher.endpoint, "teacher.endpoint"), given, "teacher.endpoint", supplied)
    assert filters(config)


@pytest.mark.parametrize("option", groups()["pool"])
def test_every_pool_composes_and_takes_its_options(option, stand_ins):
    missing = [f"pool.{key}={fill(key, stand_ins)}" for key in unset(OmegaConf.load(CONF / "pool" / f"{option}.yaml"))]
    pool = typed(composed("mine", ["run=x", f"pool={option}", *missing]), MineConfig).pool
    assert pool
    given = {name: value for name, value in pool.items() if name != "_target_"}
    check_arguments(locate(pool, "pool"), given, "pool")


@pytest.mark.parametrize(
    ("group", "option"), [pair for pair in IN_TRAIN if pair[0] in ("loss", "loss/term", "experiment")]
)
def test_every_loss_builds(group, option, stand_ins):
    config = resolved(overrides_for(group, option, stand_ins))
    objective = assemble_objective(config)
    assert list(objective.terms) == list(config.loss.term)


@pytest.mark.parametrize("option", groups()["optim"])
def test_every_optimizer_takes_a_step(option):
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = build(resolved([f"optim={option}"]).optim.optimizer, "optim.optimizer", params=[weight])
    weight.square().sum().backward()
    optimizer.step()
    assert weight.item() < 1.0


@pytest.mark.parametrize("option", groups()["hardware"])
def test_every_hardware_builds_or_says_that_it_is_not_there(option):
    config = resolved([f"hardware={option}"])
    if config.hardware.accelerator == "gpu" and not torch.cuda.is_available():
        with pytest.raises(UserError, match="cannot be had: No supported gpu backend found!") as caught:
            check_parts(config)
        assert (caught.value.key, caught.value.value) == ("hardware.accelerator", "gpu")
        assert caught.value.fix == "Works everywhere: hardware=cpu"
        return
    place = check_parts(config)
    parts = {"task": TASKS[config.data.task], "objective": assemble_objective(config)}
    module: Any = SimpleNamespace(**parts, teacher=None, unused_parameters=[])
    trainer = make_trainer(config, module, [], place)
    assert trainer.num_devices == place.per_node


@pytest.mark.parametrize("option", groups()["callbacks"])
def test_every_choice_of_callbacks_builds(option):
    nodes = resolved([f"callbacks={option}"]).callbacks
    assert all(isinstance(build(node, f"callbacks.{name}"), Callback) for name, node in nodes.items())


@pytest.mark.slow
@pytest.mark.parametrize("option", groups()["logger"])
def test_every_logger_builds(option, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    node = resolved([f"logger={option}"]).logger
    if node is not None:
        logger = build(node, "logger", save_dir=str(tmp_path), name="first", group="digits", job_type="train")
        finish([logger])
        assert isinstance(logger, Logger)


@pytest.mark.parametrize("option", groups()["data"])
def test_every_source_takes_its_options(option, stand_ins):
    source = resolved(overrides_for("data", option, stand_ins)).data.source
    given = {name: value for name, value in source.items() if name != "_target_"}
    check_arguments(locate(source, "data.source"), given, "data.source")


@pytest.mark.parametrize("option", groups()["student"])
def test_every_student_builds(option, stand_ins):
    config = resolved(overrides_for("student", option, stand_ins))
    tokenizer = load_tokenizer(stand_ins["model"])
    teacher = load_teacher(config.teacher, TASKS["text_classification"]) if config.teacher.path else None
    task = task_of(config, tokenizer) if teacher is None else TASKS["text_classification"]
    options: dict[str, Any] = {"label_names": None if task.is_causal else ["no", "yes"]}
    student = load_student(
        config.student, task, **options, tokenizer=tokenizer if task.is_text else None, teacher=teacher
    )
    assert student.training
    assert student.num_parameters() > 0


def task_of(config: TrainConfig, tokenizer: Any) -> Any:
    """The first task that the student's architecture can do."""
    import transformers

    kind = type(architecture_of(config.student, tokenizer, "student"))
    return next(task for task in TASKS.values() if kind in getattr(transformers, task.auto_class)._model_mapping)


@pytest.mark.parametrize("option", [option for group, option in IN_TRAIN if group == "teacher"])
def test_every_teacher_loads(option, stand_ins):
    config = resolved(overrides_for("teacher", option, stand_ins))
    if config.teacher.path is None:
        assert option in ("none", "several")
    elif not Path(config.teacher.path).exists():
        pytest.skip(f"no model at {config.teacher.path}")
    else:
        assert not load_teacher(config.teacher, TASKS["text_classification"]).training


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("recipe", groups()["recipe"])
def test_every_recipe_is_planned(recipe, preset, tmp_path):
    given = [
        f"recipe={recipe}",
        "seed=3",
        "logger=none",
        "hardware.num_workers=1",
        *([f"debug_preset={preset}"] if preset else []),
        *LEFT_TO_THE_USER.get(recipe, []),
    ]
    options = typed(composed("run", [*given, f"run.dir={tmp_path}"]), RecipeCommandConfig)
    stages = plan(options, tmp_path, given)
    parts = options.recipe
    rounds = [f"{name}_{number + 1}" for number in range(parts.rounds) for name in parts.round]
    assert [stage.name for stage in stages] == [*parts.stages, *rounds, *parts.last]
    for stage in stages:
        if stage.command == "train":
            config = typed(stage.config, TrainConfig)
            assert (config.seed, config.logger, config.hardware.num_workers) == (3, None, 1)
            assert config.run.dir == str(tmp_path / stage.name)
            assert (config.run.experiment == "debug") == (preset is not None)
        elif stage.command == "mine":
            assert typed(stage.config, MineConfig).seed == 3


@pytest.mark.slow
@pytest.mark.parametrize(("keeps_last", "kept"), [(True, "student_2"), (False, "student_1")])
def test_a_round_that_gained_nothing_is_not_what_is_evaluated(keeps_last, kept, tmp_path):
    given = ["recipe=loop"]
    options = typed(composed("run", [*given, f"run.dir={tmp_path}"]), RecipeCommandConfig)
    last = plan(options, tmp_path, given, num_rounds=2, keeps_last=keeps_last)[-1]
    assert last.config.run == str(tmp_path / kept)


@pytest.mark.parametrize("option", groups()["bar"])
def test_every_bar_composes_and_builds_its_slices(option):
    bar = typed(composed("evaluate", ["run=x", f"bar={option}"]), EvaluateConfig).bar
    assert bar.name == (None if option == "none" else option)
    for name, node in bar.slices.items():
        assert build(node, f"bar.slices.{name}")([])
