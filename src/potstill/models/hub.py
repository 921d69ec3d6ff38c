"""Reading from a local directory or the hub: quietly, and with the user's faults told as such."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from potstill.errors import UserError

log = logging.getLogger(__name__)

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_MAX_CHARACTERS = 240  # of a library's message: some list every architecture there is


@contextmanager
def reading(path: str, key: str) -> Iterator[str]:
    """What `from_pretrained` should be given for `path`; UserError under `key` where nothing can be read there."""
    directory = Path(path).expanduser()
    if not directory.exists() and not _HUB_NAME.fullmatch(path):
        raise UserError(key, path, f"there is no {directory.absolute()}.", f"Set {key}=DIRECTORY or {key}=OWNER/NAME.")
    try:
        with quiet():
            yield str(directory) if directory.exists() else path
    except (OSError, ValueError, SafetensorError) as error:
        if isinstance(error, UserError):
            raise
        where = "the directory" if directory.exists() else f"no directory {directory.absolute()}, and the hub"
        problem = f"cannot be read. {where[0].upper()}{where[1:]} gives: {first_line(error)}"
        raise UserError(key, path, problem, f"Set {key}=DIRECTORY with config.json, or a name the hub has.") from error


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, no advice and no account of retries; the libraries' settings are put back afterwards."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    hub_verbosity = hub_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    hub_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def building(key: str, value: object, attn_implementation: str | None = None) -> Iterator[None]:
    """Quiet; what transformers refuses to build becomes a UserError under `key`, or under that of the attention."""
    try:
        with quiet():
            yield
    except (ValueError, TypeError, ImportError, StrictDataclassError) as error:
        if isinstance(error, UserError):
            raise
        who, fix = key.partition(".")[0], f"Change {key}, or take one of the presets: potstill inspect"
        if attn_implementation and re.search("attn_implementation|flash|sdpa|flex", str(error), re.IGNORECASE):
            key, value, fix = f"{who}.attn_implementation", attn_implementation, "Works everywhere: eager. Usual: sdpa."
        raise UserError(key, value, f"transformers refuses: {first_line(error)}", fix) from error


def warn_unpinned(path: str, revision: str | None, who: str) -> None:
    """What a name on the hub means can change from one day to the next."""
    if revision is None and not Path(path).expanduser().exists():
        log.warning("%s.revision is not set: what %s means may change, and this run not be repeatable.", who, path)


def first_line(error: Exception) -> str:
    """The message of a library's error, on one line of bounded length."""
    text = " ".join(str(error).split())
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}..."
