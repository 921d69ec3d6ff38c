from __future__ import annotations

import pytest

from potstill.losses.layer_maps import layer_map, layer_pairs


@pytest.mark.parametrize(
    ("how", "num_student", "num_teacher", "expected"),
    [
        ("uniform", 4, 12, [2, 5, 8, 11]),
        ("uniform", 6, 12, [1, 3, 5, 7, 9, 11]),
        ("uniform", 4, 6, [0, 2, 3, 5]),
        ("uniform", 1, 6, [5]),
        ("first", 3, 6, [0, 1, 2]),
        ("last", 3, 6, [3, 4, 5]),
        ([1, 3, 5, 7, 9], 5, 12, [1, 3, 5, 7, 9]),
        ((0, 0, 5), 3, 6, [0, 0, 5]),
    ],
)
def test_the_map_is_the_papers(how, num_student, num_teacher, expected) -> None:
    assert layer_map(how, num_student, num_teacher) == expected


@pytest.mark.parametrize("num_teacher", range(1, 14))
def test_a_uniform_map_ends_at_the_last_layer_and_uses_none_twice(num_teacher: int) -> None:
    for num_student in range(1, num_teacher + 1):
        layers = layer_map("uniform", num_student, num_teacher)
        assert layers[-1] == num_teacher - 1
        assert len(set(layers)) == num_student
        assert layers[0] >= 0


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("middle", "'middle' is no layer map; choose one of uniform, first, last"),
        ([0, 6], r"no layers \[6\]; its layers are 0 to 5"),
        ([-1, 2], r"no layers \[-1\]"),
        ([0, 1, 2], "names 3 layers, but the student has 2"),
        ([4, 1], "descends"),
    ],
)
def test_layers_that_do_not_exist_are_refused(how, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        layer_map(how, 2, 6)


@pytest.mark.parametrize("how", ["uniform", "first", "last"])
def test_a_student_with_more_layers_than_its_teacher_is_refused(how: str) -> None:
    with pytest.raises(ValueError, match="7 layers of a student"):
        layer_map(how, 7, 6)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (-1, -2, [(1, 4)]),
        (0, 0, [(0, 0)]),
        ([0, -1], [3, 5], [(0, 3), (1, 5)]),
        (None, [3, 5], [(0, 3), (1, 5)]),
        (None, "uniform", [(0, 2), (1, 5)]),
        (None, "last", [(0, 4), (1, 5)]),
    ],
)
def test_layers_are_paired_by_number_from_either_end_or_by_a_map(student, teacher, expected) -> None:
    assert layer_pairs(student, teacher, 2, 6) == expected


@pytest.mark.parametrize(
    ("student", "teacher", "problem"),
    [
        (2, -1, r"student has no layers \[2\]; its layers are 0 to 1"),
        (-1, [0, -7], "teacher has no layers|cannot be paired"),
        (None, -1, "2 layers of the student cannot be paired with 1 of the teacher"),
        (-1, "uniform", "'uniform' maps all layers of the student, but -1 was chosen"),
    ],
)
def test_pairs_that_cannot_be_made_are_refused(student, teacher, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        layer_pairs(student, teacher, 2, 6)
