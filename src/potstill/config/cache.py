"""Options of the signal cache that could not work, or would have no effect."""

from __future__ import annotations

from potstill.config.schema import CacheConfig, TrainConfig
from potstill.errors import UserError

FORMS = {"exact": ("dtype",), "top_k": ("top_k", "top_p", "values"), "sampled": ("draws",)}  # and their own options
CACHE_CHOICES = {
    "teacher.cache.form": tuple(FORMS),
    "teacher.cache.dtype": (None, "float32", "bfloat16", "float16"),
    "teacher.cache.values": ("float16", "uint8"),
}
CACHE_POSITIVE = ("teacher.cache.top_k", "teacher.cache.top_p", "teacher.cache.draws")
MAX_DRAWS = 255  # how often a class was drawn has a byte


def validate_cache(config: TrainConfig) -> None:
    """Raises UserError for the first of `teacher.cache`."""
    cache = config.teacher.cache
    for name in ("write", "form", *(option for options in FORMS.values() for option in options)):
        is_used = cache.dir is not None and (name in ("write", "form") or name in FORMS[cache.form])
        if not is_used and getattr(cache, name) != getattr(CacheConfig, name):
            why = "without teacher.cache.dir" if cache.dir is None else f"with teacher.cache.form={cache.form}"
            raise UserError(f"teacher.cache.{name}", getattr(cache, name), f"has no effect {why}.", "Leave it out.")
    if cache.dir is None:
        return
    if cache.form != "exact":
        _few_classes(config)
    if config.hardware.shard_teacher:
        problem = "needs every rank to ask the teacher at the same time, and each finds other examples kept."
        raise UserError("hardware.shard_teacher", True, problem, "Set teacher.cache.dir=null")


def _few_classes(config: TrainConfig) -> None:
    cache, task = config.teacher.cache, config.data.task
    if task != "causal_lm":
        problem = f"keeps some of many classes, and is for language models, not data.task={task}."
        raise UserError("teacher.cache.form", cache.form, problem, "Set teacher.cache.form=exact")
    if config.teacher.members:
        problem = "keeps some classes of each teacher, and others of the next: they have no mean."
        raise UserError("teacher.cache.form", cache.form, problem, "Set teacher.cache.form=exact")
    if cache.top_p > 1.0:
        raise UserError(
            "teacher.cache.top_p", cache.top_p, "is no probability.", "For example: teacher.cache.top_p=0.9"
        )
    if cache.draws > MAX_DRAWS:
        problem = f"is more than {MAX_DRAWS}, the most that a byte counts."
        raise UserError("teacher.cache.draws", cache.draws, problem, f"Set teacher.cache.draws={MAX_DRAWS} or fewer.")
