from __future__ import annotations

from pathlib import Path

import pytest

from potstill.losses import response
from potstill.reporting.loss_table import BEGIN, END, formula, loss_table, main, source, with_table

REPO = Path(__file__).resolve().parents[2]
TERMS, PAGE = REPO / "conf" / "loss" / "term", REPO / "docs" / "losses.md"
ROWS = loss_table(TERMS).splitlines()[2:]


def test_the_committed_table_is_that_of_the_docstrings(tmp_path: Path) -> None:
    page = tmp_path / "losses.md"
    page.write_text(PAGE.read_text(encoding="utf-8").replace("| `kd` |", "| `stale` |", 1), encoding="utf-8")
    main(str(TERMS), str(page))
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8"), "write it anew: make docs"


@pytest.mark.parametrize("row", ROWS, ids=[row.split("`")[1] for row in ROWS])
def test_a_row_is_whole(row: str) -> None:
    cells = row.replace(r"\|", "").split("|")[1:-1]
    assert len(cells) == 5, "a bar that is not escaped ends a cell"
    assert " = " in cells[2], "the second paragraph of the docstring is no formula"
    assert all(cell.strip() for cell in cells)


def test_every_term_has_a_row() -> None:
    assert [row.split("`")[1] for row in ROWS] == sorted(file.stem for file in TERMS.glob("*.yaml"))
    assert [row.split("`")[1] for row in ROWS if "couples rows" in row][:2] == ["cka", "contrastive"]


def test_a_source_is_linked_and_ends_before_what_agrees() -> None:
    link = "[arXiv:1512.00567](https://arxiv.org/abs/1512.00567)"
    assert source(response.cross_entropy) == f"label smoothing of Szegedy et al. 2015, section 7, {link}"
    assert formula(response.dkd).startswith("d_n = T^2 * (target_weight")


def test_a_page_without_a_place_for_the_table_is_left_alone() -> None:
    assert with_table(f"a\n{BEGIN}\nold\n{END}\nz\n", "new") == f"a\n{BEGIN}\n\nnew\n\n{END}\nz\n"
    for page in ("", BEGIN, f"{END} {BEGIN}"):
        with pytest.raises(ValueError, match="no place for the table"):
            with_table(page, "new")
