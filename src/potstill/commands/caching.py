"""From the config of a cache to a teacher that keeps its answers there."""

from __future__ import annotations

import logging
from pathlib import Path

from potstill.commands.shared import Source
from potstill.config.schema import CacheConfig, TrainConfig
from potstill.errors import UserError
from potstill.models.output_layer import check_apart, num_columns
from potstill.models.task import Task
from potstill.signals.cache import open_cache
from potstill.signals.cached import CachedTeacher, parts_of
from potstill.signals.codecs import Codec, Exact, Sampled, TopK
from potstill.signals.identity import identity_of
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import Needs

log = logging.getLogger(__name__)

FORM = "teacher.cache.form"


def cached_teacher(config: TrainConfig, source: Source, needs: Needs, live: LiveTeacher) -> CachedTeacher:
    """`live`, with its answers to `needs` kept below `teacher.cache.dir`.

    Raises UserError where the teacher has no such answers, or what is kept there may not be added to and is another's.
    """
    cache = config.teacher.cache
    assert cache.dir is not None
    if source.task.is_causal and needs.logits:
        _check_model(cache, live)
    codecs = _codecs(cache, source.task, needs)
    identity = identity_of(live, source.tokenizer, source.label_names, codecs)
    opened = open_cache(Path(cache.dir), identity, codecs, write=cache.write)
    log.info("Signals of the teacher: %s, %d examples so far.", opened.directory, len(opened.store))
    may_write = cache.write
    if config.data.pair_by_label and may_write:
        log.info("data.pair_by_label draws new pairs for every epoch: they are not kept.")
        may_write = False
    return CachedTeacher(live, needs, opened, may_write=may_write)


def _codecs(cache: CacheConfig, task: Task, needs: Needs) -> dict[str, Codec]:
    """By part. What a head that is left out of the cache will get is always kept in full, as are hidden states."""
    codecs: dict[str, Codec] = dict.fromkeys(parts_of(needs), Exact(cache.dtype))
    if needs.logits and task.is_causal and cache.form == "top_k":
        codecs["logits"] = TopK(cache.top_k, cache.top_p, cache.values)
    elif needs.logits and task.is_causal and cache.form == "sampled":
        codecs["logits"] = Sampled(cache.draws)
    return codecs


def _check_model(cache: CacheConfig, live: LiveTeacher) -> None:
    if cache.form == "exact":
        check_apart(live.model, FORM)
        return
    num_classes = num_columns(live.model)
    assert num_classes is not None
    for name in ("top_k", "draws"):
        if getattr(cache, name) >= num_classes:
            problem = f"is not fewer than the teacher's {num_classes} classes."
            raise UserError(f"teacher.cache.{name}", getattr(cache, name), problem, f"Keep all of it: {FORM}=exact")
