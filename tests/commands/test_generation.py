"""Which rows are asked about."""

from __future__ import annotations

from datasets import Dataset

from potstill.commands.generation import _first

ROWS = [{"text": f"row {number}"} for number in range(30)]


def texts(rows: list[dict[str, str]], limit: int | None) -> list[str]:
    return _first(Dataset.from_list(rows), limit)["text"][:]


def test_a_limit_chooses_by_content_and_keeps_the_order() -> None:
    ten = texts(ROWS, 10)
    assert ten == [text for text in texts(ROWS, None) if text in ten]
    assert set(ten) < set(texts(ROWS, 20)), "what was asked stays among what is asked"
    assert ten == texts(ROWS[::-1], 10)[::-1], "its place in the file decides nothing"
    assert ten != texts(ROWS, None)[:10]
    assert len(texts(ROWS, 99)) == 30
