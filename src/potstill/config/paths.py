"""Where the config groups lie: inside the wheel, or beside `src/` in a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
CONF = next(path for path in (_PACKAGE / "conf", _PACKAGE.parent.parent / "conf") if path.is_dir())


def groups() -> dict[str, list[str]]:
    """Every config group and its options, as typed on the command line: `{"loss/term": ["ce", ...], ...}`."""
    found: dict[str, list[str]] = {}
    for file in sorted(CONF.rglob("*.yaml")):
        group = file.parent.relative_to(CONF).as_posix()
        if group != "." and not group.startswith("hydra"):
            found.setdefault(group, []).append(file.stem)
    return found
