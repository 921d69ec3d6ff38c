"""Which layer of the teacher each layer of the student imitates, as numbers from 0."""

from __future__ import annotations

from collections.abc import Sequence

LAYER_MAPS = ("uniform", "first", "last")


def layer_map(how: str | Sequence[int], num_student: int, num_teacher: int) -> list[int]:
    """The teacher's layer for each of the student's `num_student` layers, in order.

    uniform: the last of each of `num_student` equal parts, floor((i + 1) * num_teacher / num_student) - 1: every kth,
        so that the last imitates the last; 12 to 4 gives [2, 5, 8, 11]. (A student made of the teacher's layers takes
        others: `student.layers=uniform` keeps the first as well.)
    first, last: as many in a row, at that end. A list: these layers, not descending, one for each of the student's.

    ValueError where `how` is none of them, where a layer does not exist, or where the student has more layers.

    Source: Jiao et al. 2019 (TinyBERT), section 3.1, arXiv:1909.10351, g(m) = 3 m for 12 to 4 (`uniform`); Sun et al.
    2019 (Patient KD), section 3, arXiv:1908.09355, whose PKD-Last is `last`, and PKD-Skip a list such as
    [1, 3, 5, 7, 9], without the last layer, which its loss on logits imitates already.
    """
    if not isinstance(how, str):
        return _explicit(list(how), num_student, num_teacher)
    if how not in LAYER_MAPS:
        raise ValueError(f"'{how}' is no layer map; choose one of {', '.join(LAYER_MAPS)}, or list the layers")
    if not 1 <= num_student <= num_teacher:
        raise ValueError(f"{num_student} layers of a student cannot each have one of a teacher's {num_teacher}")
    if how == "uniform":
        return [(layer + 1) * num_teacher // num_student - 1 for layer in range(num_student)]
    start = 0 if how == "first" else num_teacher - num_student
    return list(range(start, start + num_student))


def layer_pairs(
    student: int | Sequence[int] | None, teacher: int | Sequence[int] | str, num_student: int, num_teacher: int
) -> list[tuple[int, int]]:
    """(student's, teacher's) layers to be compared, from 0; a negative number counts from the end.

    student: None is all of its layers, in order. teacher: as many, or a layer map by name, which is of all layers.

    ValueError where a layer does not exist, where they are not as many, or where a map is given some layers.
    """
    if isinstance(teacher, str):
        if student is not None:
            raise ValueError(f"'{teacher}' maps all layers of the student, but {student} was chosen")
        return list(enumerate(layer_map(teacher, num_student, num_teacher)))
    mine = list(range(num_student)) if student is None else _numbers(student, num_student, "student")
    theirs = _numbers(teacher, num_teacher, "teacher")
    if len(mine) != len(theirs):
        raise ValueError(f"{len(mine)} layers of the student cannot be paired with {len(theirs)} of the teacher")
    return list(zip(mine, theirs, strict=True))


def _numbers(layers: int | Sequence[int], num_layers: int, who: str) -> list[int]:
    numbers = [layers] if isinstance(layers, int) else list(layers)
    missing = [number for number in numbers if not -num_layers <= number < num_layers]
    if missing:
        raise ValueError(f"the {who} has no layers {missing}; its layers are 0 to {num_layers - 1}")
    return [number % num_layers for number in numbers]


def _explicit(layers: list[int], num_student: int, num_teacher: int) -> list[int]:
    if len(layers) != num_student:
        raise ValueError(f"{layers} names {len(layers)} layers, but the student has {num_student}")
    missing = [layer for layer in layers if not 0 <= layer < num_teacher]
    if missing:
        raise ValueError(f"the teacher has no layers {missing}; its layers are 0 to {num_teacher - 1}")
    if layers != sorted(layers):
        raise ValueError(f"{layers} descends: a later layer of the student would imitate an earlier one")
    return layers
