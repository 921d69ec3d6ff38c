"""Where a W&B run goes: online, offline, or nowhere."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from potstill.errors import UserError, nearest_hint

MODES = ("auto", "online", "offline", "disabled")
DEFAULT_URL = "https://api.wandb.ai"


def resolve_mode(mode: str, environment: Mapping[str, str] = os.environ) -> str:
    """The client's mode, `online`, `offline` or `disabled`, for our `mode`.

    `auto` is what WANDB_MODE says and, where it says nothing, `online` for a user who is logged in, else `offline`:
    nobody is asked for a key in the middle of a job. Any other mode was asked for and stands.
    Raises UserError for a mode that does not exist.
    """
    if mode not in MODES:
        raise UserError("logger.mode", mode, "is no mode of the W&B logger.", nearest_hint(mode, MODES))
    if mode != "auto":
        return mode
    default = "online" if is_logged_in(environment) else "offline"
    chosen = environment.get("WANDB_MODE") or default
    return "offline" if chosen == "dryrun" else chosen  # dryrun: the client's old word


def is_logged_in(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the client would find a key without asking: in the environment or in the netrc file.

    Asked without the client: its own check keeps the answer for the life of the process.
    """
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(environment.get("WANDB_BASE_URL") or DEFAULT_URL).netloc
    return any(_has_login(path, host) for path in _netrc_files(environment))


def _netrc_files(environment: Mapping[str, str]) -> list[Path]:
    if named := environment.get("NETRC"):
        return [Path(named).expanduser()]
    return [Path.home() / ".netrc", Path.home() / "_netrc"]


def _has_login(path: Path, host: str) -> bool:
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):  # absent, unreadable or broken: no login, and offline loses nothing
        return False
