from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from potstill.commands import assemble, shared
from potstill.commands.assemble import Models, Source, assemble_models, assemble_objective, assemble_source
from potstill.commands.shared import Kept, forget
from potstill.config.compose import composed, typed
from potstill.config.schema import TrainConfig
from potstill.models.load import load_teacher
from potstill.signals.remembered import RememberedTeacher
from tests.conftest import Outcome
from tests.tiers import one_and_others

WORDS = ["eel", "cat", "dog", "owl"]


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.fixture
def texts(saved: Callable[..., str], tmp_path: Path) -> list[str]:
    """Overrides: short texts of four words, and a teacher with opinions that remembers."""
    write_texts(tmp_path / "train.csv", seed=0)
    teacher = saved(words=WORDS, initializer_range=0.5)
    return [
        *("data=files", f"data.source.train={tmp_path}/train.csv"),
        *("teacher=pretrained", f"teacher.path={teacher}", "teacher.remember=true", "loss=kd"),
        *("student=bert_tiny", "student.config.hidden_size=16", "student.config.intermediate_size=32", "logger=none"),
    ]


def write_texts(file: Path, seed: int) -> None:
    drawn = random.Random(seed)
    rows = (f"{' '.join(drawn.choices(WORDS, k=drawn.randint(1, 9)))},{drawn.choice(['no', 'yes'])}" for _ in range(99))
    file.write_text("\n".join(["text,label", *rows]))


def parts(*overrides: str, labelled_only: bool = False) -> tuple[Source, Models]:
    config = typed(composed("train", overrides), TrainConfig)
    objective = assemble_objective(config)
    source = assemble_source(config, labelled_only=labelled_only)
    return source, assemble_models(config, source, objective)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often data was prepared and a teacher loaded."""
    counts = {"data": 0, "teacher": 0}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(assemble, "build_data", counted("data", assemble.build_data))
    monkeypatch.setattr(assemble, "load_teacher", counted("teacher", assemble.load_teacher))
    return counts


@pytest.mark.slow
def test_a_sweep_does_not_pay_for_data_and_teacher_in_every_job(
    potstill: Callable[..., Outcome], texts: list[str], made: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    signal = shared.LiveTeacher.signal
    monkeypatch.setattr(shared.LiveTeacher, "signal", lambda *given: (asked.append(len(given[1])), signal(*given))[1])
    swept = ["optim.optimizer.lr=0.1,0.01", "loss.term.kd.temperature=1,2", "student.init=random,teacher_layers"]
    single = [text for text in texts if not text.startswith("student.config")]
    sweep = ["-m", "run.dir=jobs", "student.config.hidden_size=16", "student.config.intermediate_size=32", *swept]
    assert potstill("train", *single, *sweep, "optim.max_steps=15", "optim.max_epochs=null").code == 0
    assert made == {"data": 1, "teacher": 1}
    assert sum(asked) <= 99


@pytest.mark.slow
@pytest.mark.parametrize("extra", one_and_others([], ["student=teacher_layers", "student.config.num_hidden_layers=1"]))
def test_a_job_is_bit_for_bit_what_it_is_alone(
    potstill: Callable[..., Outcome], texts: list[str], made: dict[str, int], extra: list[str]
) -> None:
    kept = [text for text in texts if not (extra and text.startswith("student"))]
    common = [*kept, *extra, "optim.max_steps=15", "optim.max_epochs=null"]  # more than an epoch
    sweep = ["optim.optimizer.lr=0.1,0.01", "seed=3,4", "data.batch_size=8,16"]
    assert potstill("train", "-m", *common, *sweep, "run.dir=jobs").code == 0
    assert made == {"data": 1, "teacher": 1}
    for number in (4, 5, 7):  # the second of its kind, as jobs differ in their learning rate first
        job, alone = Path(f"jobs/{number}"), Path(f"alone{number}")
        own = json.loads((job / "job.json").read_text())["overrides"]
        assert own[0] == "optim.optimizer.lr=0.01"
        forget()
        assert potstill("train", *common, *own, f"run.dir={alone}").code == 0
        weights, expected = (load_file(run / "student/model.safetensors") for run in (job, alone))
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
        losses = [json.loads((run / "manifest.json").read_text())["metrics"]["val/loss"] for run in (job, alone)]
        assert losses[0] == losses[1]


def test_changed_files_are_not_taken_for_the_old_ones(texts: list[str], made: dict[str, int], tmp_path: Path) -> None:
    first, _ = parts(*texts)
    parts(*texts)
    assert made == {"data": 1, "teacher": 1}
    write_texts(tmp_path / "train.csv", seed=1)
    second, _ = parts(*texts)
    assert made["data"] == 2
    assert first.data.fingerprint != second.data.fingerprint


def test_a_teacher_trained_again_in_the_same_place_is_another(texts: list[str], made: dict[str, int]) -> None:
    _, before = parts(*texts)
    path = next(text for text in texts if text.startswith("teacher.path=")).partition("=")[2]
    model = AutoModelForSequenceClassification.from_pretrained(path)
    old = model.classifier.bias.detach().clone()
    try:
        torch.nn.init.constant_(model.classifier.bias, 7.0)
        model.save_pretrained(path)
        _, after = parts(*texts)
        assert made["teacher"] == 2
        assert teacher_of(after).classifier.bias.tolist() == [7.0, 7.0]
        assert teacher_of(before).classifier.bias.tolist() != [7.0, 7.0]
    finally:
        model.classifier.bias.data = old
        model.save_pretrained(path)


@pytest.mark.parametrize(
    ("option", "num_made"),
    [
        ("data.max_length=4", 2),
        ("data.validation_fraction=0.3", 2),
        ("data.label_names=[yes,no]", 2),
        ("limit_batches=2", 2),
        ("student.tokenizer={teacher}", 2),
        ("seed=1", 1),
        ("data.batch_size=4", 1),
        ("data.length_grouping=true", 1),
        ("hardware.num_workers=1", 1),
        ("optim.optimizer.lr=0.5", 1),
    ],
)
def test_data_is_shared_where_nothing_that_decides_it_changed(
    texts: list[str], made: dict[str, int], option: str, num_made: int
) -> None:
    teacher = next(text for text in texts if text.startswith("teacher.path=")).partition("=")[2]
    option = option.format(teacher=teacher)
    parts(*texts)
    source, _ = parts(*texts, option)
    assert made["data"] == num_made
    forget()
    alone, _ = parts(*texts, option)
    assert options_of(source) == options_of(alone)


def options_of(source: Source) -> dict[str, Any]:
    """Everything of a data module that is plain, and the examples it holds."""
    plain = {name: value for name, value in vars(source.data).items() if isinstance(value, str | int | list)}
    return plain | {name: table.to_dict() for name, table in source.data.examples.items()}


def test_labels_chosen_by_another_seed_are_other_data(texts: list[str], made: dict[str, int]) -> None:
    for seed in (0, 1, 0, 1):
        parts(*texts, "data.labels_per_class=5", f"seed={seed}")
    assert made["data"] == 2


def test_what_a_loss_needs_of_the_labels_is_not_mixed_up(texts: list[str]) -> None:
    few = [*texts, "data.labels_per_class=5"]
    followed, _ = parts(*few)
    labelled, _ = parts(*few, labelled_only=True)
    again, _ = parts(*few)
    assert labelled.data.num_examples("train") == 10 < followed.data.num_examples("train")
    assert again.data.num_examples("train") == followed.data.num_examples("train")


def test_a_trainer_leaves_nothing_in_the_next_jobs_data(texts: list[str]) -> None:
    first, _ = parts(*texts)
    first.data.trainer = object()  # type: ignore[assignment]
    second, _ = parts(*texts)
    assert second.data.trainer is None


def teacher_of(models: Models) -> Any:
    assert models.teacher is not None
    return models.teacher.model


def test_a_student_made_of_the_teachers_layers_does_not_train_the_next_jobs_teacher(texts: list[str]) -> None:
    kept = [text for text in texts if not text.startswith("student")]
    _, models = parts(*kept, "student=teacher_layers", "student.config.num_hidden_layers=1")
    before = {name: value.clone() for name, value in teacher_of(models).state_dict().items()}
    for parameter in models.student.parameters():
        torch.nn.init.ones_(parameter)
    models.student.config.id2label = {0: "changed", 1: "too"}
    _, again = parts(*texts)
    assert teacher_of(again) is teacher_of(models)
    assert all(torch.equal(value, before[name]) for name, value in teacher_of(again).state_dict().items())
    assert teacher_of(again).config.id2label == {0: "no", 1: "yes"}
    assert not any(parameter.requires_grad for parameter in teacher_of(again).parameters())


@pytest.mark.parametrize(
    ("option", "is_shared"),
    [
        ("optim.optimizer.lr=0.5", True),
        ("loss.term.kd.temperature=9", True),
        ("optim.max_steps=3", True),
        ("seed=1", False),
        ("data.batch_size=4", False),
        ("data.length_grouping=true", False),
        ("hardware.micro_batch_examples=2", False),
        ("run.resume=true", False),
        ("hardware.strategy=fsdp", False),
    ],
)
def test_a_teacher_asked_in_other_company_does_not_answer_from_memory(
    texts: list[str], option: str, is_shared: bool
) -> None:
    _, first = parts(*texts)
    _, second = parts(*texts, option)
    assert isinstance(first.teacher, RememberedTeacher)
    assert (first.teacher is second.teacher) == is_shared
    assert parts(*texts)[1].teacher is first.teacher


def test_a_teacher_that_may_be_sharded_in_place_is_not_shared(texts: list[str]) -> None:
    _, first = parts(*texts, "hardware.strategy=fsdp")
    _, second = parts(*texts, "hardware.strategy=fsdp")
    assert teacher_of(first) is not teacher_of(second)


def test_a_teacher_at_random_leaves_the_student_the_numbers_it_has_alone(texts: list[str]) -> None:
    kept = [text for text in texts if not text.startswith(("teacher", "student.tokenizer"))]
    tokenizer = next(text for text in texts if text.startswith("teacher.path=")).partition("=")[2]
    shape = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    own = [*kept, "teacher=none", f"student.tokenizer={tokenizer}"]
    own += [f"+teacher.config.{key}={value}" for key, value in shape.items()]
    weights = []
    for _ in range(2):
        torch.manual_seed(5)
        _, models = parts(*own)
        weights.append(models.student.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_what_draws_random_numbers_is_made_anew() -> None:
    kept: Kept[float] = Kept(1)
    first, second = (kept.take("key", lambda: float(torch.rand(()))) for _ in range(2))
    assert first != second


def test_no_more_is_kept_than_may_be_and_the_old_goes_before_the_new_is_made() -> None:
    kept: Kept[str] = Kept(2)
    for key in "abac":
        kept.take(key, lambda key=key: f"{key}, beside {len(kept.things)}")
    assert list(kept.things.values()) == ["a, beside 0", "c, beside 1"]


def test_data_of_unknown_making_is_not_shared(texts: list[str], made: dict[str, int]) -> None:
    config = typed(composed("train", texts), TrainConfig)
    source = shared.shared_source(config, lambda: assemble._read(config, labelled_only=False), labelled_only=False)
    config.data.source["_target_"] = "somewhere.else"
    other = shared.shared_source(config, lambda: source, labelled_only=False)
    assert other is source
    assert made["data"] == 1


@pytest.mark.gpu
def test_a_kept_teacher_leaves_the_accelerator_to_the_next_job(texts: list[str]) -> None:
    _, models = parts(*texts)
    assert models.teacher is not None
    models.teacher.to(torch.device("cuda"))
    parts("data=digits", "loss=ce", "logger=none")
    assert next(teacher_of(models).parameters()).device.type == "cpu"


def test_the_teacher_that_is_kept_is_the_one_that_would_be_loaded(texts: list[str]) -> None:
    parts(*texts)
    source, models = parts(*texts)
    config = typed(composed("train", texts), TrainConfig)
    fresh = load_teacher(config.teacher, source.task, label_names=source.label_names, tokenizer=source.tokenizer)
    assert str(fresh.config) == str(teacher_of(models).config)
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in teacher_of(models).state_dict().items())
