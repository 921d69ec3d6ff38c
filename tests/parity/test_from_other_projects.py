"""docs/from_other_projects.md: every block of overrides composes, and has the value that the page says it has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch import Tensor

from benchmarks.parity_cases import CASES
from benchmarks.parity_cases.comparing import TAP, counts_of, objective
from potstill.losses.tap_terms import ProjectedTerm
from potstill.losses.terms import Term
from potstill.objective import Step

from .test_golden import LABELS, STUDENT, STUDENT_HIDDEN, TEACHER, TEACHER_HIDDEN
from .test_golden_features import STUDENT_EMBEDDINGS, STUDENT_MAPS, TEACHER_EMBEDDINGS, TEACHER_MAPS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "from_other_projects.md"
CE = 3.1605665540

# A project that is not run, its loss, the taps of the reference inputs it is given, and what it is worth there.
REFERENCES: list[tuple[str, str, tuple[Tensor, Tensor] | None, float]] = [
    ("mdistiller", "`KD`", None, 0.1 * CE + 0.9 * 1.1645865978),
    ("mdistiller", "`DKD`", None, CE + 9.1155006871),
    ("mdistiller", "`FITNET`", (STUDENT_HIDDEN.flatten(0, 1), TEACHER_HIDDEN.flatten(0, 1)), CE + 100 * 1.1812459351),
    ("mdistiller", "`AT`", (STUDENT_MAPS, TEACHER_MAPS), CE + 1000 * 0.0033765970),
    ("mdistiller", "`SP`", (STUDENT_EMBEDDINGS, TEACHER_EMBEDDINGS), CE + 3000 * 0.3131732575),
    ("mdistiller", "`PKT`", (STUDENT_EMBEDDINGS, TEACHER_EMBEDDINGS), CE + 30000 * 0.2409402780),
    ("mdistiller", "`RKD`", (STUDENT_EMBEDDINGS, TEACHER_EMBEDDINGS), CE + 25 * 0.2923912586 + 50 * 0.1748238581),
    ("DistillKit", "Its default", None, 0.5 * CE + 0.5 * 0.8953164032),
    ("DistillKit", "`kl`", None, 1.1645865978),
    ("DistillKit", "`jsd`", None, 0.1750424142),
]


def blocks() -> list[tuple[str, str, tuple[str, ...]]]:
    """Section, the words before it, and overrides of each block, but for the first, which shows a whole command."""
    sections = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    found = [(section, re.findall(r"([^\n]+)\n\n```sh\n(.*?)```", section, re.DOTALL)) for section in sections]
    return [
        (section.splitlines()[0], words, tuple(block.split())) for section, pairs in found for words, block in pairs
    ]


BLOCKS = blocks()
RUN = {frozenset(case.overrides) for case in CASES}
NOT_RUN = ("mdistiller", "DistillKit")


@pytest.mark.parametrize("section", sorted({section for section, _, _ in BLOCKS}))
def test_every_block_is_one_that_is_compared(section: str) -> None:
    of_section = [(words, overrides) for name, words, overrides in BLOCKS if name == section]
    if section in NOT_RUN:
        assert len(of_section) == sum(project == section for project, *_ in REFERENCES)
    else:
        assert [words for words, overrides in of_section if frozenset(overrides) not in RUN] == []


@pytest.mark.parametrize(("project", "words", "taps", "expected"), REFERENCES, ids=lambda value: str(value)[:12])
def test_a_block_of_a_project_that_is_not_run_has_its_reference_value(
    project: str, words: str, taps: tuple[Tensor, Tensor] | None, expected: float
) -> None:
    (overrides,) = [found for section, before, found in BLOCKS if section == project and before.startswith(words)]
    student_hidden, teacher_hidden = ({TAP: tap} for tap in taps) if taps else ({}, {})
    step = Step(
        student_logits=STUDENT,
        teacher_logits=TEACHER,
        labels=LABELS,
        student_hidden=student_hidden,
        teacher_hidden=teacher_hidden,
    )
    made = objective(overrides)
    terms = [term for term in made.terms.values() if isinstance(term, Term)]
    if any(isinstance(term, ProjectedTerm) for term in terms):  # others would ask for a label for each embedding
        made.prepare(step)
    of_each_term = 1e-6
    tolerance = of_each_term * sum(term.weight for term in terms)
    assert made(step, counts_of(step))[0].item() == pytest.approx(expected, abs=tolerance)


def test_every_project_that_the_page_promises_has_a_section_and_blocks_say_which_module() -> None:
    headings = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    promised = ["TRL", "torchdistill", "TextBrewer", "mdistiller", "sentence-transformers", "DistillKit", "torchtune"]
    assert headings == promised
    taps = {word.split("=")[1] for _, _, overrides in BLOCKS for word in overrides if "_tap=" in word}
    assert taps == {TAP}


def test_every_comparison_has_its_row_in_the_table() -> None:
    rows = (DOCS / "losses.md").read_text(encoding="utf-8").splitlines()
    for case in CASES:
        head = f"| {case.peer} | {case.name} | `{case.our_name}` | {case.convention} | "
        assert len([row for row in rows if row.startswith(head)]) == 1, f"paste the table anew: make parity\n{head}"
