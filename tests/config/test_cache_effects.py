"""Options of the signal cache have an effect, as those of test_effects.py do, and are refused where they have none."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from potstill.commands.assemble import assemble_models, assemble_objective, assemble_source
from potstill.config.compose import composed, typed
from potstill.config.schema import CacheConfig, TrainConfig
from potstill.config.validate import validate
from potstill.errors import UserError
from potstill.models.packing import packs
from potstill.signals.cached import CachedTeacher, caches_within

TINY = ("n_embd=8", "n_layer=1", "n_head=1", "n_positions=32")
CAUSAL = (
    *("data=stdlib", "data.source.max_bytes=200000", "data.source.vocabulary_size=300", "data.max_length=16"),
    *("student=gpt2_stdlib", "loss=kd", "teacher.path=null", "+teacher.config.model_type=gpt2"),
    *(f"student.config.{text}" for text in TINY),
    *(f"+teacher.config.{text}" for text in TINY),
)
TOP_K, SAMPLED = ("teacher.cache.form=top_k", "teacher.cache.top_k=8"), ("teacher.cache.form=sampled",)
EFFECTS: dict[str, tuple[str, ...]] = {
    "teacher.cache.dir=other": (),
    "teacher.cache.form=top_k": (),
    "teacher.cache.dtype=bfloat16": (),
    "teacher.cache.top_k=9": TOP_K,
    "teacher.cache.top_p=0.5": TOP_K,
    "teacher.cache.values=uint8": TOP_K,
    "teacher.cache.draws=5": SAMPLED,
}
_HERE = ("config/test_cache_effects.py", "test_an_option_of_the_cache_changes_where_or_how_signals_are_kept")
_WRITE = ("config/test_cache_effects.py", "test_an_empty_cache_is_refused_where_nothing_may_be_written")
_COMPILED = ("config/test_cache_effects.py", "test_a_teacher_is_compiled_where_asked_for")
OF_CACHES = {change.partition("=")[0]: _HERE for change in EFFECTS}
OF_CACHES |= {"teacher.cache.write": _WRITE, "teacher.compile": _COMPILED}


def made(*overrides: str) -> TrainConfig:
    config = typed(composed("train", [*CAUSAL, *overrides]), TrainConfig)
    validate(config)
    return config


def teacher_of(*overrides: str) -> CachedTeacher:
    config = made("teacher.cache.dir=signals", *overrides)
    objective = assemble_objective(config)
    models = assemble_models(config, assemble_source(config), objective)
    [cached] = caches_within(models.teacher)
    return cached


def test_every_option_has_a_test() -> None:
    assert {*(f"teacher.cache.{field.name}" for field in fields(CacheConfig)), "teacher.compile"} == set(OF_CACHES)


def test_a_teacher_is_compiled_where_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain, compiled = (teacher_of(f"teacher.compile={asked}").live.model for asked in ("false", "true"))
    assert plain._compiled_call_impl is None
    assert compiled._compiled_call_impl is not None
    assert packs(plain)
    assert not packs(compiled), "it would be compiled anew for the lengths of every batch"


@pytest.mark.parametrize("change", EFFECTS)
def test_an_option_of_the_cache_changes_where_or_how_signals_are_kept(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = [text for text in EFFECTS[change] if text.partition("=")[0] != change.partition("=")[0]]
    before, after = teacher_of(*base), teacher_of(*base, change)
    assert before.cache.directory != after.cache.directory


def test_an_empty_cache_is_refused_where_nothing_may_be_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="holds no signals"):
        teacher_of("teacher.cache.write=false")


IN = "teacher.cache.dir=signals"
REFUSED: dict[str, tuple[Any, ...]] = {
    "teacher.cache.form": ("teacher.cache.form=top_k",),
    "teacher.cache.top_k": (IN, "teacher.cache.top_k=8"),
    "teacher.cache.dtype": (IN, *SAMPLED, "teacher.cache.dtype=float16"),
    "teacher.cache.draws": (IN, *SAMPLED, "teacher.cache.draws=256"),
    "teacher.cache.top_p": (IN, *TOP_K, "teacher.cache.top_p=1.5"),
    "teacher.cache.values": (IN, *TOP_K, "teacher.cache.values=int8"),
    "hardware.shard_teacher": (IN, "hardware.strategy=fsdp", "hardware.shard_teacher=true"),
}


@pytest.mark.parametrize(("key", "overrides"), REFUSED.items(), ids=lambda value: value if type(value) is str else "")
def test_what_could_not_work_is_refused_before_anything_is_loaded(key: str, overrides: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        made(*overrides)
    assert caught.value.key == key


def test_some_classes_are_kept_of_language_models_only() -> None:
    config = typed(composed("train", ["teacher.path=there", "loss=kd", IN, *TOP_K]), TrainConfig)
    with pytest.raises(UserError, match="for language models"):
        validate(config)


def test_no_more_classes_than_there_are_can_be_kept(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="not fewer than the teacher's 300 classes"):
        teacher_of("teacher.cache.form=top_k", "teacher.cache.top_k=300")


def test_a_term_that_needs_all_classes_is_refused_with_the_form() -> None:
    with pytest.raises(UserError, match="dkd") as caught:
        assemble_objective(made(IN, *TOP_K, "loss=dkd"))
    assert caught.value.key == "teacher.cache.form"
