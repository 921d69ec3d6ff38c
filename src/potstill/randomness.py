"""Random numbers of a training step, as a function of where it stands."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_step(seed: int, step: int, rank: int) -> None:
    """Start every generator anew for one step on one rank.

    What a step draws (dropout) then depends on nothing that came before it: a resumed run draws what the run without
    interruption would have drawn, on any number of ranks, and no state of a generator has to be kept.
    """
    (number,) = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)
    random.seed(int(number))
    np.random.seed(int(number) % 2**32)
    # torch.manual_seed visits every backend there could be, which takes ten times as long as all the rest
    torch.default_generator.manual_seed(int(number) % 2**63)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(int(number) % 2**63)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(int(number) % 2**63)
