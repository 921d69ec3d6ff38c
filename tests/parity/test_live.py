"""Our losses beside the projects they come from, installed: values and gradients on random inputs."""

from __future__ import annotations

import pytest

from benchmarks.parity_cases import CASES
from benchmarks.parity_cases.comparing import SEEDS, Case, compare, gap_where_overlooked, version

pytestmark = pytest.mark.slow  # a project takes seconds to import

CONVENTIONS = [case for case in CASES if case.differs is not None]


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    case: Case = request.param
    if version(case.peer) is None:
        pytest.skip(f"{case.peer} is not installed: make parity (extra `parity`)")
    return case


def named(case: Case) -> str:
    return f"{case.peer}: {case.name}"


@pytest.mark.parametrize("case", CASES, indirect=True, ids=named)
def test_value_and_gradient_are_those_of_the_project(case: Case) -> None:
    for seed in SEEDS:
        difference = compare(case, seed)
        assert max(difference.value, difference.gradient) <= case.tolerance, seed


@pytest.mark.parametrize("case", CONVENTIONS, indirect=True, ids=named)
def test_overlooking_a_convention_gives_another_value(case: Case) -> None:
    """Else the page names a convention that changes nothing."""
    assert max(gap_where_overlooked(case, seed) for seed in SEEDS) > 0.01
