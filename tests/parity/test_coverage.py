"""No reference value is left aside: each number of the shared values.json is one that a test here compares with."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def numbers(node: Any) -> Iterator[float]:
    if isinstance(node, float):
        yield node
    elif isinstance(node, list):
        for each in node:
            yield from numbers(each)


def constants(root: Path) -> set[float]:
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in root.glob("test_golden*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, float)}


def uncovered(reference: dict[str, Any], known: set[float]) -> list[str]:
    groups = {name: group for name, group in reference.items() if name not in ("inputs", "properties")}
    entries = [(f"{name}: {entry}", value) for name, group in groups.items() for entry, value in group.items()]
    return [entry for entry, value in entries if not set(numbers(value)) <= known]


def test_every_reference_value_is_compared_with(shared: Path) -> None:
    reference = json.loads((shared / "golden" / "values.json").read_text(encoding="utf-8"))
    assert uncovered(reference, constants(HERE)) == []


def test_a_value_that_no_test_knows_is_named() -> None:
    reference = {"inputs": {"S": 1.5}, "features": {"rkd": [0.25, 0.75], "pkt": 0.5}, "properties": ["0.125"]}
    assert uncovered(reference, {0.25, 0.5}) == ["features: rkd"]
