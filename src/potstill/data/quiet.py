"""Keep the progress bars of `datasets` off the user's terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import datasets


@contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars inside; afterwards as the user had them."""
    had_bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if had_bars:
            datasets.enable_progress_bars()
