from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.generation.servers import Running, endpoint


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with endpoint(tmp_path) as running:
        yield running
