"""What must not be cut: terms whose value of a row depends on the rows beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NoReturn

from potstill.errors import UserError
from potstill.losses.terms import Term


def refuse_cuts(terms: Iterable[Term], limits: Mapping[str, int | None], num_ranks: int) -> None:
    """Refuse to cut batches under a term with `couples_rows`. Raises UserError naming the limit and the term.

    limits: of a micro-batch, by the key a user would set; None is no limit. num_ranks: among which a batch is shared.
    """
    coupled = [term.name for term in terms if term.couples_rows]
    if not coupled:
        return
    for key, limit in limits.items():
        if limit is not None:
            _refuse(key, limit, coupled, f"Set {key}=null, and a data.batch_size that fits into memory whole")
    if num_ranks > 1:
        _refuse("hardware.devices", num_ranks, coupled, "Set hardware.devices=1 hardware.num_nodes=1")


def refuse_weights(terms: Iterable[Term], options: Mapping[str, str | None]) -> None:
    """Refuse weights of examples under a term with `couples_rows`, whose values are not those of single examples.

    options: that weigh examples, by key. Raises UserError.
    """
    coupled = ", ".join(f"loss.term.{term.name}" for term in terms if term.couples_rows)
    for key, value in options.items():
        if value and coupled:
            problem = f"weighs examples, and {coupled} compares them with each other."
            raise UserError(key, value, problem, f"Set {key}=null, or leave the term out.")


def _refuse(key: str, value: int, coupled: list[str], fix: str) -> NoReturn:
    keys = ", ".join(f"loss.term.{name}" for name in coupled)
    problem = f"cuts batches, which would change what {keys} compares: rows with each other."
    raise UserError(key, value, problem, f"{fix}; or leave the term out.")
