"""Every option has an effect. A field that the schema gains and no test here knows is an error."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from transformers import AutoConfig, AutoTokenizer

from potstill.commands.assemble import assemble_models, assemble_objective, assemble_source, make_module
from potstill.commands.check import check_parts
from potstill.commands.fit import make_trainer
from potstill.commands.recording import make_loggers
from potstill.config import mine_schema, schema
from potstill.config.schema import HardwareConfig, TrainConfig
from potstill.errors import UserError
from potstill.models.packing import packed_by, packs
from tests.config.fields import OF_EVALUATION, OF_TEXT, fields
from tests.config.of_audits import OF_AUDITS
from tests.config.of_mining import OF_MINING
from tests.config.resolved import resolved
from tests.config.test_cache_effects import OF_CACHES
from tests.config.test_embedding_effects import OF_ENCODERS

TESTS = Path(__file__).resolve().parent.parent


class Parts:
    """What a config builds, each part when it is asked for."""

    def __init__(self, overrides: list[str]) -> None:
        self.config = resolved(overrides)
        pl.seed_everything(self.config.seed, verbose=False)

    @cached_property
    def objective(self) -> Any:
        return assemble_objective(self.config)

    @cached_property
    def source(self) -> Any:
        return assemble_source(self.config)

    @cached_property
    def models(self) -> Any:
        return assemble_models(self.config, self.source, self.objective)

    @cached_property
    def module(self) -> Any:
        return make_module(self.config, self.source, self.models, self.objective)

    @property
    def trainer(self) -> Any:
        parts = {"task": self.source.task, "objective": self.objective, "teacher": None, "unused_parameters": []}
        return make_trainer(self.config, SimpleNamespace(**parts), [], check_parts(self.config))  # type: ignore[arg-type]

    @property
    def teacher(self) -> Any:
        return self.models.teacher.model

    @property
    def batches(self) -> list[Any]:
        return list(self.source.data.train_dataloader())

    def learning_rates(self) -> list[float]:
        """Of the first five steps."""
        made = self.module.configure_optimizers()
        rates = []
        for _ in range(5):
            rates.append(made["optimizer"].param_groups[0]["lr"])
            made["optimizer"].step()
            made["lr_scheduler"]["scheduler"].step()
        return rates


def weights(model: torch.nn.Module) -> float:
    return sum(float(parameter.detach().double().abs().sum()) for parameter in model.parameters())


def tokens(parts: Parts) -> list[Any]:
    return sorted(row for batch in parts.batches for row in batch.inputs["input_ids"].tolist())


def gold(parts: Parts) -> list[Any]:
    return sorted(str(row) for batch in parts.batches for row in batch.labels.tolist())


def sharded(parts: Parts) -> Parts:
    """Its parameters laid out over the ranks of a group of one."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        parts.module.shard(init_device_mesh("cpu", (1,)))
    finally:
        distributed.destroy_process_group()
    return parts


SOURCE = ["data=files", "data.source.train={data}", "student.tokenizer={model}", "loss=ce"]
TEXT = [*SOURCE, "student=bert_tiny", "student.config.hidden_size=16", "student.config.intermediate_size=32"]
TEACHER = ["loss=kd", "teacher=pretrained", "teacher.path={model}"]
TAUGHT = [*TEXT, *TEACHER]
PRETRAINED = [*SOURCE, "student=pretrained", "student.path={model}"]
CAUSAL = [*TEXT, "data.task=causal_lm"]
DECODER = [*CAUSAL, "+student.config.is_decoder=true"]
PAIRS = [*CAUSAL, "data.columns={{text: null, prompt: text, completion: other}}"]
IMAGES = ["data=files", "data.source.train={images}", "data.task=image_classification"]
IMAGES += ["data.columns={{text: null, image: image}}"]
SEVERAL = [*TEXT, "loss=kd", "teacher=several"]
SEVERAL += ["+teacher.members.a.path={model}", "+teacher.members.b.path={other}"]
ROUTED = ["teacher.combine=route", "teacher.route_by=label"]
ROUTED += ["+teacher.members.a.routes=[no,up]", "+teacher.members.b.routes=[yes,down]"]
COPIED = [*SOURCE, *TEACHER, "student=teacher_layers", "student.config.num_hidden_layers=1"]

Row = tuple[list[str], str, Callable[[Parts], Any]]
EFFECTS: dict[str, Row] = {
    "run.experiment": ([], "run.experiment=other", lambda p: p.config.run.dir.split("/")[1]),
    "run.name": (["run.name=first"], "run.name=other", lambda p: p.config.run.dir),
    "run.dir": (["run.dir=first"], "run.dir=other", lambda p: p.config.callbacks["best"]["directory"]),
    "seed": (TEXT, "seed=1", lambda p: (weights(p.models.student), [b.keys for b in p.batches])),
    "teacher.path": (TAUGHT, "teacher.path={other}", lambda p: weights(p.teacher)),
    "teacher.config": (TAUGHT, "+teacher.config.hidden_act=relu", lambda p: p.teacher.config.hidden_act),
    "teacher.dtype": (TAUGHT, "teacher.dtype=bfloat16", lambda p: p.teacher.dtype),
    "teacher.attn_implementation": (
        *(TAUGHT, "teacher.attn_implementation=eager"),
        lambda p: p.teacher.config._attn_implementation,
    ),
    "teacher.members": (
        *(SEVERAL, "+teacher.members.b.weight=3.0"),
        lambda p: [member.weight for member in p.models.teacher.members.values()],
    ),
    "teacher.combine": (SEVERAL, "teacher.combine=losses", lambda p: p.models.teacher.combine),
    "teacher.route_by": (
        *([*SEVERAL, *ROUTED, "data.slices=[label,second]"], "teacher.route_by=second"),
        lambda p: [batch.routes for batch in p.batches],
    ),
    "teacher.remember": (TAUGHT, "teacher.remember=true", lambda p: type(p.models.teacher)),
    "student.path": (PRETRAINED, "student.path={other}", lambda p: weights(p.models.student)),
    "student.config": (TEXT, "student.config.hidden_size=32", lambda p: p.models.student.num_parameters()),
    "student.attn_implementation": (
        *(TEXT, "student.attn_implementation=eager"),
        lambda p: p.models.student.config._attn_implementation,
    ),
    "student.init": (PRETRAINED, "student.init=random", lambda p: weights(p.models.student)),
    "student.layers": ([*COPIED, "student.layers=first"], "student.layers=last", lambda p: weights(p.models.student)),
    "student.tokenizer": (TEXT, "student.tokenizer={other_words}", tokens),
    "loss.term": (TAUGHT, "loss=jsd", lambda p: list(p.objective.terms)),
    "data.task": (TEXT, "data.task=causal_lm", gold),
    "data.source": (TEXT, "data.source.train={more}", lambda p: p.source.data.fingerprint),
    "data.columns.text": (TEXT, "data.columns.text=other", tokens),
    "data.columns.text_pair": (TEXT, "data.columns.text_pair=other", tokens),
    "data.columns.image": (
        *(IMAGES, "data.columns.image=negative"),
        lambda p: sum(b.inputs["pixel_values"].sum().item() for b in p.batches),
    ),
    "data.columns.label": (TEXT, "data.columns.label=other_label", lambda p: p.source.label_names),
    "data.columns.prompt": (PAIRS, "data.columns.prompt=third", tokens),
    "data.columns.completion": (PAIRS, "data.columns.completion=third", tokens),
    "data.columns.messages": (
        *([*CAUSAL, "data.columns={{text: null, messages: messages}}"], "data.columns.messages=others"),
        tokens,
    ),
    "data.slices": (TEXT, "data.slices=[other_label]", lambda p: list(p.source.data.slice_values("test"))),
    "data.label_names": (TEXT, "data.label_names=[yes,no]", lambda p: p.source.label_names),
    "data.validation_fraction": (
        *(TEXT, "data.validation_fraction=0.5"),
        lambda p: p.source.data.num_examples("validation"),
    ),
    "data.test_fraction": (TEXT, "data.test_fraction=0.5", lambda p: p.source.data.num_examples("test")),
    "data.labels_per_class": (TEXT, "data.labels_per_class=2", gold),
    "data.batch_size": (TEXT, "data.batch_size=4", lambda p: len(p.batches)),
    "data.max_length": (TEXT, "data.max_length=2", lambda p: max(len(row) for row in tokens(p))),
    "data.length_grouping": (
        *([*TEXT, "data.batch_size=8"], "data.length_grouping=true"),
        lambda p: sum(b.inputs["input_ids"].numel() for b in p.batches),
    ),
    "optim.optimizer": (TEXT, "optim.optimizer.lr=0.5", lambda p: p.learning_rates()),
    "optim.schedule": (TEXT, "optim.schedule=constant", lambda p: p.learning_rates()),
    "optim.warmup_fraction": (TEXT, "optim.warmup_fraction=0.5", lambda p: p.learning_rates()),
    "optim.max_steps": (
        *([*TEXT, "optim.max_epochs=null", "optim.max_steps=5"], "optim.max_steps=9"),
        lambda p: (p.trainer.max_steps, p.learning_rates()),
    ),
    "optim.max_epochs": (TEXT, "optim.max_epochs=2", lambda p: (p.trainer.max_epochs, p.learning_rates())),
    "optim.clip_norm": (TEXT, "optim.clip_norm=0.1", lambda p: p.module.clip_norm),
    "optim.on_nonfinite": (TEXT, "optim.on_nonfinite=skip", lambda p: p.module.max_skipped),
    "optim.max_skipped": ([*TEXT, "optim.on_nonfinite=skip"], "optim.max_skipped=3", lambda p: p.module.max_skipped),
    "hardware.devices": ([], "hardware.devices=2", lambda p: p.trainer.num_devices),
    "hardware.strategy": (["hardware.devices=2"], "hardware.strategy=fsdp", lambda p: type(p.trainer.strategy)),
    "hardware.precision": ([], "hardware.precision=bf16-mixed", lambda p: p.trainer.precision),
    "hardware.tf32": (
        *([], "hardware.tf32=true"),
        lambda p: (p.trainer, torch.get_float32_matmul_precision())[1],
    ),
    "hardware.activation_checkpointing": (
        *(TEXT, "hardware.activation_checkpointing=true"),
        lambda p: p.models.student.is_activation_checkpointing,
    ),
    "hardware.shard_teacher": (
        *([*TAUGHT, "hardware.strategy=fsdp"], "hardware.shard_teacher=true"),
        lambda p: [type(weight) for weight in sharded(p).teacher.parameters()],
    ),
    "hardware.compile": (TEXT, "hardware.compile=true", lambda p: p.module.student._compiled_call_impl is None),
    "hardware.fused_head": (DECODER, "hardware.fused_head=false", lambda p: p.module.fuses),
    "hardware.logits_dtype": (DECODER, "hardware.logits_dtype=bfloat16", lambda p: p.module.objective.fusing),
    "hardware.micro_batch_examples": (
        *(TEXT, "hardware.micro_batch_examples=3"),
        lambda p: len(list(p.module._pieces(p.batches[0]))),
    ),
    "hardware.micro_batch_tokens": (
        *(TEXT, "hardware.micro_batch_tokens=20"),
        lambda p: len(list(p.module._pieces(p.batches[0]))),
    ),
    "hardware.packing": (TEXT, "hardware.packing=off", lambda p: packs(p.models.student)),
    "hardware.packed_attention": (TEXT, "hardware.packed_attention=flex", lambda p: packed_by(p.models.student)),
    "hardware.num_workers": (TEXT, "hardware.num_workers=1", lambda p: p.source.data.train_dataloader().num_workers),
    "logger": (
        *(["logger=csv"], "logger=none"),
        lambda p: [type(logger) for logger in make_loggers(p.config)],
    ),
    "callbacks": ([], "callbacks=none", lambda p: len(p.trainer.callbacks)),
    "validate_every": ([], "validate_every=7", lambda p: p.trainer.val_check_interval),
    "log_every": ([], "log_every=7", lambda p: p.trainer.log_every_n_steps),
    "limit_batches": ([*TEXT, "data.batch_size=4"], "limit_batches=1", lambda p: len(p.batches)),
}


RECIPE_HARDWARE = [f"recipe.hardware.{field.name}" for field in dataclasses.fields(HardwareConfig)]  # handed on alike
# Fields whose effect another test shows: file, function.
ELSEWHERE = {
    **dict.fromkeys(
        [f"{who}.{name}" for who in ("teacher", "student") for name in ("revision", "trust_remote_code")],
        ("config/test_effects.py", "test_the_hub_is_asked_for_what_the_config_says"),
    ),
    **dict.fromkeys(
        ["run.resume", "run.allow_changed"],
        ("integration/test_resume.py", "test_a_finished_training_is_extended"),
    ),
    **dict.fromkeys(
        ["run.sweep", "run.swept", "run.choices", "run.trial"],
        ("integration/test_sweep.py", "test_a_job_is_told_where_it_stands"),
    ),
    **(OF_ENCODERS | OF_CACHES | OF_TEXT),
    "returns": ("integration/test_sweep.py", "test_a_sweeper_gets_what_the_config_says"),
    "hardware.cpu_offload": ("config/test_effects.py", "test_offloading_reaches_the_shards"),
    "hardware.num_nodes": ("config/test_effects.py", "test_nodes_are_counted_by_who_started_them"),
    "hardware.accelerator": ("integration/test_wrong_input.py", "test_further_faults_of_a_training"),
    **(OF_AUDITS | OF_MINING),
    "evaluate.run": ("integration/test_wrong_input.py", "test_a_baseline_trained_on_another_split_is_not_compared"),
    "evaluate.baseline": (
        "integration/test_wrong_input.py",
        "test_a_baseline_trained_on_another_split_is_not_compared",
    ),
    **OF_EVALUATION,
    "evaluate.output": ("integration/test_recipe.py", "test_a_recipe_repeats_only_what_has_changed"),
    "evaluate.logger": ("integration/test_multirun.py", "test_an_evaluation_is_a_wandb_run_where_asked_for"),
    **dict.fromkeys(
        ["recipe.run.dir", "recipe.recipe.stages"],
        ("integration/test_recipe.py", "test_a_recipe_repeats_only_what_has_changed"),
    ),
    **dict.fromkeys(
        ["recipe.seed", "recipe.logger", "recipe.debug_preset", *RECIPE_HARDWARE],
        ("config/test_groups.py", "test_every_recipe_is_planned"),
    ),
    **dict.fromkeys(
        ["stage.command", "stage.overrides", "stage.extra"],
        ("integration/test_recipe.py", "test_a_recipe_repeats_only_what_has_changed"),
    ),
}


@pytest.fixture(scope="module")
def paths(saved, tmp_path_factory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("data")
    words = ["eel", "cat", "dog", "owl"]
    first, other, other_words = saved(words=words), saved(words=words), saved(words=words[::-1])
    for path in (first, other, other_words):
        tokenizer = AutoTokenizer.from_pretrained(path)
        tokenizer.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
        tokenizer.save_pretrained(path)
    texts = [" ".join(words[(n >> shift) % 4] for shift in range(0, 2 * (2 + n % 4), 2)) for n in range(120)]
    rows = [
        {
            **{"text": text, "other": f"{text} owl", "third": f"eel {text}"},
            **{"label": ("no", "yes")[n % 2], "other_label": ("a", "b")[n % 2], "second": ("up", "down")[n % 3 == 0]},
            **{"messages": chat(text), "others": chat(f"owl {text}")},
        }
        for n, text in enumerate(texts)
    ]
    images = [{"image": [[n / 120] * 8] * 8, "negative": [[-n / 120] * 8] * 8, "label": n % 2} for n in range(120)]
    files = {"data": rows, "more": [*rows, {**rows[0], "text": "owl owl owl"}], "images": images}
    for name, table in files.items():
        (directory / f"{name}.jsonl").write_text("\n".join(map(json.dumps, table)))
    models = {"model": first, "other": other, "other_words": other_words}
    return {**models, **{name: str(directory / f"{name}.jsonl") for name in files}}


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "cat"}, {"role": "assistant", "content": text}]


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch 2.13, at its own compiler
@pytest.mark.slow
@pytest.mark.parametrize("key", EFFECTS)
def test_an_option_changes_what_is_built(key, paths, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base, change, observe = EFFECTS[key]
    before, after = ([text.format(**paths) for text in texts] for texts in (base, [*base, change]))
    with torch.compiler.set_stance("force_eager"):  # asked to compile, torch would take a minute
        assert observe(Parts(before)) == observe(Parts(before)), "what is observed must not change by itself"
        assert observe(Parts(before)) != observe(Parts(after))


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_the_hub_is_asked_for_what_the_config_says(who, paths, monkeypatch):
    asked = []
    load = AutoConfig.from_pretrained

    def record(name: str, **options: Any) -> Any:
        asked.append(options)
        return load(name, **options)

    monkeypatch.setattr(AutoConfig, "from_pretrained", record)
    base = [*PRETRAINED, *TEACHER]
    changes = [f"{who}.revision=0123abc", f"{who}.trust_remote_code=true"]
    _ = Parts([text.format(**paths) for text in [*base, *changes]]).models
    wanted = {"revision": "0123abc", "trust_remote_code": True}
    assert any(wanted.items() <= options.items() for options in asked)
    assert not all(wanted.items() <= options.items() for options in asked), "the other model's options are its own"


def test_bfloat16_weights_are_the_students_alone(paths):
    taps = [f"loss.term.hidden_mse.{who}_tap=bert.encoder.layer.1" for who in ("student", "teacher")]
    mse = [*TAUGHT, "loss/term=[kd,hidden_mse]", *taps]
    parts = Parts([text.format(**paths) for text in [*mse, "hardware.precision=bf16-true"]])
    assert {weight.dtype for weight in parts.models.student.state_dict().values() if weight.is_floating_point()} == {
        torch.bfloat16
    }
    projector = list(parts.module.objective.parameters())
    assert projector
    assert {weight.dtype for weight in projector} == {torch.float32}
    assert parts.trainer.precision == "32-true", "Lightning would convert the projector as well"
    loss, _ = parts.objective(parts.module.step_of(parts.batches[0]), parts.module.task.count_rows(parts.batches[0]))
    assert loss.dtype == torch.float32


def test_offloading_reaches_the_shards(paths, monkeypatch):
    """Asked, not run: what it does needs an accelerator."""
    asked = []
    monkeypatch.setattr("potstill.commands.assemble.shard", lambda *_, cpu_offload: asked.append(cpu_offload))
    for offload in (False, True):
        hardware = ["hardware.strategy=fsdp", "hardware.accelerator=auto", f"hardware.cpu_offload={offload}"]
        sharded(Parts([text.format(**paths) for text in [*TEXT, *hardware]]))
    assert asked == [False, False, True, True]  # student and objective, twice


def test_nodes_are_counted_by_who_started_them(monkeypatch):
    started = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in {**started, "GROUP_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "potstill")
    for num_nodes in ("2", "auto"):
        trainer = Parts(["hardware.devices=2", "hardware.strategy=ddp", f"hardware.num_nodes={num_nodes}"]).trainer
        assert (trainer.num_nodes, trainer.world_size, trainer.global_rank) == (2, 4, 3)
    with pytest.raises(UserError, match=r"hardware\.num_nodes"):
        _ = Parts(["hardware.devices=2", "hardware.num_nodes=3"]).trainer


def test_every_field_has_a_test():
    known = {*EFFECTS, *ELSEWHERE}
    assert [name for name in fields(TrainConfig) if name not in known] == []
    others = [(schema.EvaluateConfig, "evaluate."), (schema.RecipeCommandConfig, "recipe.")]
    others += [(schema.StageConfig, "stage."), (schema.AuditConfig, "audit.")]
    others += [(mine_schema.MineConfig, "mine."), (mine_schema.GainConfig, "gain.")]
    found = {name for kind, prefix in others for name in fields(kind, prefix)}
    assert [name for name in found if name not in known] == []
    assert known <= {*fields(TrainConfig), *found}, "a field that is gone"


@pytest.mark.parametrize(("file", "function"), sorted(set(ELSEWHERE.values())))
def test_the_tests_elsewhere_exist(file, function):
    assert f"def {function}(" in (TESTS / file).read_text()
