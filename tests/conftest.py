"""What every test may take for granted: no network, nothing of the user's, the same random numbers."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads do not survive the forks of data loader workers

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
if SHARED.is_dir():
    os.environ.setdefault("POTSTILL_SHARED", str(SHARED))

_HOME = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Caches, logins and settings lie in an empty folder, made once and shared with pytest-xdist's workers."""
    if hasattr(config, "workerinput"):
        return
    home = config.stash[_HOME] = tempfile.mkdtemp(prefix="potstill-tests-")
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        os.environ[name] = f"{home}/{name.lower()}"
    os.environ["NETRC"] = f"{home}/netrc"
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]


def pytest_unconfigure(config: pytest.Config) -> None:
    if home := config.stash.get(_HOME, None):
        shutil.rmtree(home, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs an accelerator"))


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def shared() -> Path:
    """The folder of larger data and models, `$POTSTILL_SHARED` or `shared` beside the checkout."""
    folder = Path(os.environ.get("POTSTILL_SHARED", SHARED))
    if not folder.is_dir():
        pytest.skip(f"no folder of shared data at {folder}")
    return folder
