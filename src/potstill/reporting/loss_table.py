"""The table of all terms in docs/losses.md, from docstrings: `make docs` writes it there.

python -m potstill.reporting.loss_table conf/loss/term docs/losses.md
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

BEGIN = "<!-- written by `make docs` from docstrings, up to the next comment -->"
END = "<!-- end of the table -->"
HEADER = ["| term | is | formula | rows | source |", "|---|---|---|---|---|"]


def loss_table(term_directory: Path) -> str:
    """A Markdown table, one line a term of `conf/loss/term`, in the order of their names."""
    return "\n".join([*HEADER, *_lines(term_directory)])


def with_table(page: str, table: str) -> str:
    """The page with `table` between its two comments. ValueError where it lacks them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no place for the table, between {BEGIN} and {END}")
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def formula(loss: Callable[..., Any]) -> str:
    """The second paragraph of the docstring."""
    return _paragraphs(loss)[1]


def source(loss: Callable[..., Any]) -> str:
    """The first sentence after `Source:`, without what agrees or differs."""
    paragraph = next(each for each in _paragraphs(loss) if each.startswith("Source"))
    sentence = re.split(r"\.\s+(?=[A-Z])", paragraph.partition(": ")[2])[0].rstrip(".")
    return re.sub(r"arXiv:([\d.]+\d)", r"[arXiv:\1](https://arxiv.org/abs/\1)", sentence)


def loss_of(term: type) -> Callable[..., Any]:
    """The pure function that the term's docstring names first, as in `divergence.forward_kl`."""
    module, name = re.findall(r"`(\w+)\.(\w+)`", inspect.getdoc(term) or "")[0]
    return getattr(import_module(f"potstill.losses.{module}"), name)


def _lines(term_directory: Path) -> Iterator[str]:
    for file in sorted(term_directory.glob("*.yaml")):
        module, _, name = str(OmegaConf.select(OmegaConf.load(file), "_target_")).rpartition(".")
        term: Any = getattr(import_module(module), name)
        loss = loss_of(term)
        summary = _paragraphs(term)[0].rstrip(".")
        rows = f"{term.rows}; **couples rows**" if term.couples_rows else term.rows
        code = f"`{formula(loss).replace('`', '')}`"  # backquotes do not nest
        cells = (f"`{file.stem}`", summary, code, rows, source(loss))
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _paragraphs(documented: Any) -> list[str]:
    """Of the docstring, each on one line."""
    return [" ".join(each.split()) for each in (inspect.getdoc(documented) or "").split("\n\n")]


def main(term_directory: str, page: str) -> None:
    file = Path(page)
    file.write_text(with_table(file.read_text(encoding="utf-8"), loss_table(Path(term_directory))), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
