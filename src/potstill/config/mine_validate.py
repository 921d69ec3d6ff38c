"""Values and combinations of `potstill mine` that types cannot refuse."""

from __future__ import annotations

from potstill.config.mine_schema import MineConfig
from potstill.errors import UserError, nearest_hint
from potstill.mining.prompts import check_template

SPLITS = ("train", "validation", "pool")
PICKS = ("nearest", "random")
POSITIVE = ("clusters", "budget", "total", "examples", "per_prompt")


def check_mining(options: MineConfig) -> None:
    """Raises UserError for the first thing that could not work, before any data is read."""
    for key in POSITIVE:
        value = getattr(options, key)
        if value is not None and value <= 0:
            raise UserError(key, value, "must be greater than zero.", f"Give a positive number: {key}=10")
    if options.pick not in PICKS:
        raise UserError("pick", options.pick, "is not one of the choices.", nearest_hint(options.pick, PICKS))
    for split in options.splits:
        if split == "test":
            problem = "holds test: what is trained on what failed there cannot be tested there."
            raise UserError("splits", options.splits, problem, "For example: splits=[train,validation]")
        if split not in SPLITS:
            raise UserError("splits", split, "is no split that is mined.", nearest_hint(split, SPLITS))
    if not options.splits:
        raise UserError("splits", [], "names nothing to mine.", "For example: splits=[train,validation]")
    if "pool" in options.splits and not (options.pool and options.trust_teacher):
        problem = "mines the pool, which has no gold labels."
        raise UserError("splits", options.splits, problem, "Set trust_teacher=true, and pool=file pool.train=FILE")
    if not 0 <= options.held_back < 1:
        fix = "For a half: held_back=0.5"
        raise UserError("held_back", options.held_back, "must lie in [0, 1): of the rest, failures are mined.", fix)
    if options.template is not None:
        check_template(options.template)
