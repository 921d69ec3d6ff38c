"""When and on what something was measured."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from typing import Any

import torch


def machine() -> dict[str, Any]:
    device = torch.accelerator.current_accelerator()
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(),
            "cpu": platform.processor() or platform.machine(),
            "num_threads": torch.get_num_threads(),
            "device": "cpu" if device is None else torch.get_device_module(device).get_device_name(),
            "torch": torch.__version__,
        },
    }
