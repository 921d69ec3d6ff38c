"""The first answers, looked at before the rest is asked for: an endpoint may drop in silence what it does not know.

The probe is the first row's own request, so it costs nothing extra, and after a restart nothing at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

from potstill.errors import StoppedError, UserError
from potstill.generation.engine import Engine
from potstill.generation.plan import Plan

TRIES = 3  # rows that may be refused for reasons of their own, before it is the endpoint's


async def probe(engine: Engine, plan: Plan) -> None:
    """Raises UserError where something asked for is not given, StoppedError where the first rows are all refused."""
    reasons = []
    for request in islice(plan.requests(), TRIES):
        state, raw, reason = engine.ledger.replies([request.key]).get(request.key, ("", None, None))
        if state != "done":
            await engine.ask(request)
            state, raw, reason = engine.ledger.replies([request.key])[request.key]
        asked = json.loads(request.body)
        if state == "done" and raw is not None:
            check_given(asked, json.loads(raw)["choices"])
            return
        _refuse_unknown_field(asked, reason or "")
        reasons.append(reason)
    if len(reasons) == TRIES:
        raise StoppedError(
            f"The endpoint answered none of the first {TRIES} requests. Last: {reasons[-1]}\n"
            "Nothing else was sent. Check teacher.model and generation.*, then run the command again."
        )


def check_given(asked: Mapping[str, Any], choices: list[dict[str, Any]]) -> None:
    """Raises UserError for what was asked for and is not in the reply."""
    if (num := int(asked.get("n") or 1)) != len(choices):
        problem = f"is not given: {len(choices)} came back."
        fix = "Set generation.choices_per_request=1: each sample is then a request of its own."
        raise UserError("generation.choices_per_request", num, problem, fix)
    if asked.get("logprobs") not in (None, False):
        _logprobs(asked, choices[0].get("logprobs"))
    kind = (asked.get("response_format") or {}).get("type")
    if kind in ("json_object", "json_schema") and choices[0].get("finish_reason") != "length":
        _json(asked["response_format"], (choices[0].get("message") or {}).get("content"))


def _logprobs(asked: Mapping[str, Any], given: Any) -> None:
    fix = "Leave it out of generation.body, or choose an endpoint that has it."
    if not given:
        raise UserError("generation.body.logprobs", asked["logprobs"], "is not given: the reply has none.", fix)
    tops = [len(token.get("top_logprobs") or []) for token in given.get("content") or []]
    tops += [len(token or {}) for token in given.get("top_logprobs") or []]  # of plain completions
    wanted = asked.get("top_logprobs") or (asked["logprobs"] if asked["logprobs"] is not True else 0)
    if wanted and max(tops, default=0) < wanted:
        key, problem = "generation.body.top_logprobs", f"is not given: at most {max(tops, default=0)} came back."
        raise UserError(key, wanted, problem, f"Ask for {max(tops, default=0)}, or leave it out.")


def _json(wanted: Any, content: Any) -> None:
    try:
        json.loads(content or "")
    except ValueError as error:
        problem = "is not given: what came back is no JSON."
        fix = "Leave it out of generation.body, and drop what is no JSON: generation.filters.malformed.json=true"
        raise UserError("generation.body.response_format", wanted, problem, fix) from error


def _refuse_unknown_field(asked: Mapping[str, Any], reason: str) -> None:
    for name in ("top_logprobs", "logprobs", "response_format", "n"):
        if name in asked and (f"'{name}'" in reason or name in reason.split()):
            key = "generation.choices_per_request" if name == "n" else f"generation.body.{name}"
            raise UserError(key, asked[name], f"is refused by the endpoint: {reason}", "Leave it out, or ask for less.")
