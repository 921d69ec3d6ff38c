"""A student of the teacher's layers: which layers, and that nothing is lost on the way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from potstill.config.schema import StudentConfig
from potstill.errors import UserError
from potstill.models.initialise import choose_layers, layer_stack
from potstill.models.load import load_student
from potstill.models.task import TASKS

from .tiny import causal_batch, image_batch, text_batch, tiny_model

TEXTS = [[5, 6, 7, 8], [9, 10]]
CASES = {
    "bert": ("text_classification", text_batch(TEXTS, [0, 1])),
    "vit": ("image_classification", image_batch(2)),
    "gpt2": ("causal_lm", causal_batch(TEXTS, [0, 0])),
    "llama": ("causal_lm", causal_batch(TEXTS, [0, 0])),
}
LAYER_TYPES = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]


def student_of(teacher: PreTrainedModel, task: str, **options: object) -> PreTrainedModel:
    return load_student(StudentConfig(init="teacher_layers", **options), TASKS[task], teacher=teacher)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layers", "num_student", "expected"),
    [
        ("uniform", 1, [0]),
        ("uniform", 2, [0, 5]),
        ("uniform", 3, [0, 3, 5]),
        ("uniform", 4, [0, 2, 3, 5]),
        ("uniform", 6, [0, 1, 2, 3, 4, 5]),
        ("first", 2, [0, 1]),
        ("last", 2, [4, 5]),
        ([5, 0], None, [5, 0]),
    ],
)
def test_layers_of_six(layers: str | list[int], num_student: int | None, expected: list[int]):
    assert choose_layers(layers, num_student, 6) == expected


def test_uniform_never_takes_a_layer_twice():
    for num_teacher in range(1, 40):
        for num_student in range(1, num_teacher + 1):
            assert len(set(choose_layers("uniform", num_student, num_teacher))) == num_student


@pytest.mark.parametrize(
    ("layers", "num_student", "key"),
    [
        ("uniform", None, "student.config.num_hidden_layers"),
        ("last", 7, "student.config.num_hidden_layers"),
        ("first", 0, "student.config.num_hidden_layers"),
        ("first", "two", "student.config.num_hidden_layers"),
        ("unifrom", 2, "student.layers"),
        ([0, 6], None, "student.layers"),
        ([-1], None, "student.layers"),
        ([], None, "student.layers"),
        ([0, 1], 3, "student.layers"),
    ],
)
def test_impossible_layers_are_refused(layers: str | list[int], num_student: Any, key: str):
    with pytest.raises(UserError) as caught:
        choose_layers(layers, num_student, 6)
    assert caught.value.key == key


@pytest.mark.parametrize("model_type", CASES)
def test_all_layers_give_the_teachers_own_logits(model_type: str):
    task, batch = CASES[model_type]
    teacher = tiny_model(model_type, task)
    student = student_of(teacher, task, layers=[0, 1]).eval()
    assert student is not teacher
    torch.testing.assert_close(student(**batch.inputs).logits, teacher(**batch.inputs).logits)


@pytest.mark.parametrize("model_type", CASES)
def test_the_chosen_layer_is_copied_and_the_rest_shared_by_name(model_type: str):
    task, _ = CASES[model_type]
    teacher = tiny_model(model_type, task)
    student, stack = student_of(teacher, task, layers="last", config={"num_hidden_layers": 1}), layer_stack(teacher)
    source = teacher.state_dict()
    assert student.config.num_hidden_layers == 1
    for name, value in student.state_dict().items():
        torch.testing.assert_close(value, source[name.replace(f"{stack}.0.", f"{stack}.1.")], rtol=0, atol=0)


def test_training_the_student_leaves_the_teacher_as_it_was():
    teacher = tiny_model("bert", "text_classification").requires_grad_(False)
    student = student_of(teacher, "text_classification", layers=[0])
    assert student.training
    assert all(parameter.requires_grad for parameter in student.parameters())
    shared = {value.data_ptr() for value in student.parameters()} & {value.data_ptr() for value in teacher.parameters()}
    assert not shared


def test_layers_keep_their_kind_of_attention():
    teacher = tiny_model("gemma2", "causal_lm", num_hidden_layers=4, layer_types=LAYER_TYPES)
    student = student_of(teacher, "causal_lm", layers=[0, 3])
    assert student.config.layer_types == ["sliding_attention", "sliding_attention"]


def test_a_width_that_differs_is_refused_by_its_own_key():
    teacher = tiny_model("bert", "text_classification")
    with pytest.raises(UserError, match=r"Set student\.config\.hidden_size=16") as caught:
        student_of(teacher, "text_classification", layers=[0], config={"hidden_size": 8})
    assert caught.value.key == "student.config.hidden_size"


def test_any_other_size_that_differs_is_refused():
    teacher = tiny_model("bert", "text_classification")
    with pytest.raises(UserError, match=r"intermediate\.dense.*\[64.*teacher has \[32"):
        student_of(teacher, "text_classification", layers=[0], config={"intermediate_size": 64})


def test_without_a_teacher_there_are_no_layers():
    with pytest.raises(UserError, match="needs a teacher"):
        load_student(StudentConfig(init="teacher_layers"), TASKS["causal_lm"])


def test_an_architecture_without_a_stack_of_layers_is_refused():
    teacher = tiny_model("resnet", "image_classification")
    with pytest.raises(UserError, match="finds no list of layers in a ResNetForImageClassification"):
        student_of(teacher, "image_classification", layers=[0])
