"""What every test may take for granted: no network, nothing of the user's, the same random numbers."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from lightning_utilities.core.rank_zero import rank_zero_only

from tests.tiers import IS_THOROUGH

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads do not survive the forks of data loader workers

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
if SHARED.is_dir():
    os.environ.setdefault("POTSTILL_SHARED", str(SHARED))

_HOME = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Caches, logins and settings lie in an empty folder, made once and shared with pytest-xdist's workers.

    Tests send signals that background jobs of a shell (SIGINT) and of nohup (SIGHUP) ignore.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
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
    """Files of many slow tests come first: workers are given whole files, and none should be left with a long one."""
    num_slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -num_slow[item.path])
    if not IS_THOROUGH:
        for item in items:
            if item.get_closest_marker("thorough"):
                item.add_marker(pytest.mark.skip(reason="one more of a kind: make thorough"))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs an accelerator"))


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _first_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever rank a test played: Lightning keeps it for the life of the process."""
    monkeypatch.setattr(rank_zero_only, "rank", 0, raising=False)


@pytest.fixture(autouse=True)
def _same_log_level() -> Iterator[None]:
    """Whatever a command sets: what a later test captures would depend on the order of tests."""
    logging.getLogger().setLevel(logging.WARNING)
    yield
    logging.getLogger().setLevel(logging.WARNING)


@pytest.fixture(autouse=True)
def _no_service_that_ended() -> None:
    """The W&B client looks for its service where WANDB_SERVICE says, also where a test put back one that is gone."""
    _, is_socket, path = os.environ.get("WANDB_SERVICE", "").partition("-unix-")
    if is_socket and not Path(path).exists():
        del os.environ["WANDB_SERVICE"]


@pytest.fixture
def shared() -> Path:
    """The folder of larger data and models, `$POTSTILL_SHARED` or `shared` beside the checkout."""
    folder = Path(os.environ.get("POTSTILL_SHARED", SHARED))
    if not folder.is_dir():
        pytest.skip(f"no folder of shared data at {folder}")
    return folder


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Standard error on one line: where it is wrapped depends on the length of paths."""
        return " ".join(self.err.split())


@pytest.fixture
def potstill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """The command line in this process, in an empty directory: `potstill("train", "data=digits")`."""
    from hydra.core.global_hydra import GlobalHydra

    from potstill.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # set by main: now it is put back afterwards, as sys.argv is
    monkeypatch.setattr(sys, "argv", sys.argv)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        finally:
            GlobalHydra.instance().clear()
            for handler in [handler for handler in root.handlers if handler not in handlers]:
                root.removeHandler(handler)
                handler.close()
            root.handlers[:], root.level = handlers, level
        shown = capsys.readouterr()
        return Outcome(code, shown.out, shown.err)

    return call


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Writes a tiny classifier of text with its tokenizer, and returns the directory: `saved(labels=["yes", "no"])`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

    seeds = itertools.count(1000)

    def save(
        labels: Sequence[str] = ("no", "yes"),
        words: Sequence[str] = ("eel", "cat"),
        seed: int | None = None,  # of a test that needs these very weights
        **config: object,
    ) -> str:
        directory = tmp_path_factory.mktemp("model")
        vocabulary = {word: number for number, word in enumerate(("[PAD]", "[UNK]", *words))}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
        small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        names = {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}
        options = {**small, "vocab_size": len(vocabulary), **names, **config}
        with torch.random.fork_rng():  # weights of its own, not those that a student of the test's seed begins with
            torch.manual_seed(next(seeds) if seed is None else seed)
            model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("bert", **options))
        model.save_pretrained(directory)
        fast.save_pretrained(directory)
        return str(directory)

    return save
