"""Configs of `train` that many tests ask for: each is composed once."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence

from potstill.config.compose import composed, typed
from potstill.config.schema import TrainConfig
from potstill.config.validate import validate


def resolved(overrides: Sequence[str]) -> TrainConfig:
    """Valid, and the caller's own."""
    return copy.deepcopy(_resolved(tuple(overrides)))


@functools.cache
def _resolved(overrides: tuple[str, ...]) -> TrainConfig:
    config = typed(composed("train", overrides), TrainConfig)
    validate(config)
    return config
