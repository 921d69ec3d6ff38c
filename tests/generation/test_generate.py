"""The command, in this process, against an endpoint that is another: what is asked, kept, exported and refused."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from potstill.data.generated import generated
from potstill.errors import UserError
from potstill.generation.export import damage
from potstill.generation.overlap import text_hash
from potstill.tracking.lock import locked
from tests.generation.servers import Running, endpoint, overrides, prompts_file
from tests.tiers import one_and_others

pytestmark = pytest.mark.slow  # an endpoint and a command or more, each

ROWS = [f"row {number}" for number in range(20)]


def exported(directory: str = "out") -> list[dict[str, Any]]:
    return [
        row for path in sorted(Path(directory, "export").glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def manifest(directory: str = "out") -> dict[str, Any]:
    return json.loads(Path(directory, "export", "export.json").read_text())


def dropped(directory: str = "out") -> dict[str, str]:
    lines = Path(directory, "export", "dropped.jsonl").read_text().splitlines()
    return {row["prompt"]: row["reason"] for row in map(json.loads, lines)}


def test_only_what_is_new_is_asked_for(server: Running, tmp_path: Path, potstill):
    first = prompts_file(tmp_path, ROWS)
    assert potstill("generate", *overrides(server.url, first)).code == 0
    assert sorted(server.prompts()) == sorted(ROWS)
    assert [row["prompt"] for row in exported()] == ROWS
    before = manifest()["hash"]

    again = potstill("generate", *overrides(server.url, first))
    assert (again.code, len(server.prompts()), manifest()["hash"]) == (0, 20, before)

    # another order, one field, ten more
    changed = ["another", *ROWS[:0:-1], *(f"new {number}" for number in range(10))]
    assert potstill("generate", *overrides(server.url, prompts_file(tmp_path, changed, "changed.jsonl"))).code == 0
    assert sorted(server.prompts()[20:]) == sorted(["another", *(f"new {number}" for number in range(10))])
    assert [row["prompt"] for row in exported()] == changed

    assert potstill("generate", *overrides(server.url, first, generation__max_tokens=17)).code == 0
    assert len(server.prompts()) == 51  # every body is another one


def test_equal_prompts_are_asked_once_and_filters_change_for_free(server: Running, tmp_path: Path, potstill):
    given = overrides(server.url, prompts_file(tmp_path, ["same"] * 5))
    assert potstill("generate", *given, "generation.filters.duplicate=null").code == 0
    assert (len(server.prompts()), len(exported())) == (1, 5)
    assert potstill("generate", *given).code == 0
    assert (len(server.prompts()), len(exported())) == (1, 1)
    assert manifest()["counts"] == {"dropped/duplicate": 4, "kept": 1}


def test_every_failure_is_what_it_is_and_stops_no_other_row(server: Running, tmp_path: Path, potstill):
    words = ["MALFORMED", "EMPTY", "TRUNCATED", "CHOICELESS", "OVERLOADED", "REFUSED", "BROKEN"]
    given = overrides(server.url, prompts_file(tmp_path, [*ROWS, *words]), limits__attempts=3)
    assert potstill("generate", *given, "limits.longest_wait_s=0.05").code == 0
    assert len(exported()) == 25
    assert dropped() == {
        "REFUSED": "refused: 400 the prompt is too long",
        "BROKEN": "failed: 3 attempts, the last: the reply is no JSON",
    }
    times = Counter(server.prompts())
    assert {word: times[word] for word in words} == {
        "MALFORMED": 3,
        "EMPTY": 2,
        "TRUNCATED": 2,
        "CHOICELESS": 2,
        "OVERLOADED": 2,
        "REFUSED": 1,
        "BROKEN": 3,
    }
    ledger = sqlite3.connect("runs/generate/ledger/ledger.sqlite")
    raw = ledger.execute("SELECT raw FROM failures WHERE kind = 'transient' AND status = 200").fetchall()
    assert (b'{"choices": [{"mess',) in raw  # kept as it came, to be looked at
    ledger.close()
    assert potstill("generate", *given, "limits.longest_wait_s=0.05").code == 0
    assert Counter(server.prompts())["REFUSED"] == 1  # not asked again, unless told so
    assert potstill("generate", *given, "limits.retry_refused=true", "limits.longest_wait_s=0.05").code == 0
    assert Counter(server.prompts())["REFUSED"] == 2


@pytest.mark.parametrize(
    ("word", "said"), one_and_others(("QUOTA", "exceeded your current quota"), ("MODEL", "does not exist"))
)
def test_what_needs_a_person_stops_at_once(word, said, server: Running, tmp_path: Path, potstill):
    given = overrides(server.url, prompts_file(tmp_path, [word, *ROWS]))
    outcome = potstill("generate", *given)
    assert outcome.code == 1
    assert said in outcome.words
    assert server.prompts() == [word]


def test_an_endpoint_that_takes_nothing_is_left_after_three_rows(server: Running, tmp_path: Path, potstill):
    given = overrides(server.url, prompts_file(tmp_path, [f"REFUSED {number}" for number in range(9)]))
    outcome = potstill("generate", *given)
    assert outcome.code == 1
    assert "none of the first 3 requests. Last: 400 the prompt is too long" in outcome.words
    assert len(server.prompts()) == 3


def test_refusals_for_the_rate_cost_no_attempt(tmp_path: Path, potstill):
    with endpoint(tmp_path, status=429, times=15, retry_after="0.02") as server:
        given = overrides(server.url, prompts_file(tmp_path, ROWS), limits__attempts=1)
        assert potstill("generate", *given).code == 0
        assert len(exported()) == 20
        assert Counter(request["status"] for request in server.asked()) == {429: 15, 200: 20}
    ledger = sqlite3.connect("runs/generate/ledger/ledger.sqlite")
    assert ledger.execute("SELECT max(attempts), sum(calls) FROM requests").fetchone() == (1, 20)
    ledger.close()


def test_an_endless_429_is_given_up_and_can_be_gone_on_with(tmp_path: Path, potstill):
    with endpoint(tmp_path, status=429, retry_after="0.05") as server:
        given = overrides(server.url, prompts_file(tmp_path, ROWS), limits__give_up_s=0.5)
        outcome = potstill("generate", *given)
        assert outcome.code == 1
        assert "has given no answer for" in outcome.words
        assert "429 too many requests" in outcome.words
        calls = len(server.asked())
        assert calls < 20, "it knocks on"
    with endpoint(tmp_path, port=server.port) as server:
        assert potstill("generate", *given).code == 0
        assert len(server.asked()) == calls + 20


def test_a_cap_on_cost_is_never_passed_and_what_is_there_is_exported(server: Running, tmp_path: Path, potstill):
    prices = {"teacher__price__input_per_million": 1000.0, "teacher__price__output_per_million": 1000.0}
    given = overrides(server.url, prompts_file(tmp_path, ROWS), **prices)
    outcome = potstill("generate", *given, "budget.money=0.3")
    assert outcome.code == 1
    assert "budget.money=0.3 is reached" in outcome.words
    answered = len(server.prompts())
    spent = json.loads(Path("runs/generate/ledger/status.json").read_text())["spent"]["money"]
    assert 0.2 < spent <= 0.3
    assert 0 < answered < 20
    assert (len(exported()), manifest()["complete"]) == (answered, False)
    assert potstill("generate", *given, "budget.money=3.0").code == 0
    assert sorted(server.prompts()) == sorted(ROWS)
    assert manifest()["complete"]


@pytest.mark.parametrize(("name", "cap"), one_and_others(("tokens", 300), ("calls", 7)))
def test_caps_on_calls_and_tokens(name, cap, server: Running, tmp_path: Path, potstill):
    given = overrides(server.url, prompts_file(tmp_path, ROWS))
    assert potstill("generate", *given, f"budget.{name}={cap}").code == 1
    spent = json.loads(Path("runs/generate/ledger/status.json").read_text())["spent"][name]
    assert 0 < spent <= cap


def test_a_flipped_byte_in_a_shard_is_refused_by_training_and_made_good_from_the_ledger(
    server: Running, tmp_path: Path, potstill
):
    given = overrides(server.url, prompts_file(tmp_path, ROWS), generation__shard_rows=8)
    assert potstill("generate", *given).code == 0
    shards = sorted(Path("out/export").glob("train-*.parquet"))
    assert len(shards) == 3
    whole = shards[1].read_bytes()
    shards[1].write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(UserError, match=r"is damaged: train-00001\.parquet is not as it was written"):
        generated("out")
    assert potstill("generate", *given).code == 0
    assert (shards[1].read_bytes(), len(server.prompts()), damage(Path("out/export"))) == (whole, 20, None)
    assert generated("out")["train"]["prompt"][:] == ROWS


def test_a_second_writer_is_refused(server: Running, tmp_path: Path, potstill):
    given = overrides(server.url, prompts_file(tmp_path, ROWS))
    Path("runs/generate/ledger").mkdir(parents=True)
    with locked("runs/generate/ledger"):
        outcome = potstill("generate", *given)
    assert outcome.code == 2
    assert "is being written by another process" in outcome.words
    assert server.prompts() == []


def test_a_full_disk_stops_and_nothing_is_paid_for_twice(server: Running, tmp_path: Path, potstill):
    given = overrides(server.url, prompts_file(tmp_path, [f"{number} SAY {'x' * 4000}" for number in range(60)]))
    outcome = potstill("generate", *given, "ledger.max_mb=0.2")
    assert outcome.code == 1
    assert "database or disk is full" in outcome.words
    assert potstill("generate", *given).code == 0
    extra = len(server.prompts()) - 60
    assert 0 <= extra <= 64  # in flight when the disk was full: marked as perhaps paid for
    assert len(exported()) == 60


def test_a_server_that_stops_for_a_while_costs_nothing_but_time(tmp_path: Path, potstill):
    with endpoint(tmp_path, delay_s=0.02) as server:
        given = overrides(server.url, prompts_file(tmp_path, [f"row {number}" for number in range(100)]))

        def disturb() -> None:
            while len(server.asked()) < 20:
                time.sleep(0.01)
            server.kill()
            time.sleep(0.3)
            server.start_again()
            while len(server.asked()) < 60:
                time.sleep(0.01)
            server.signal(signal.SIGSTOP)
            time.sleep(0.8)
            server.signal(signal.SIGCONT)

        disturbing = threading.Thread(target=disturb)
        disturbing.start()
        outcome = potstill("generate", *given, "limits.request_s=0.4", "limits.longest_wait_s=0.2")
        disturbing.join()
    assert outcome.code == 0
    assert len(exported()) == 100


@pytest.mark.parametrize(
    ("asked", "key"),
    one_and_others(
        (["+generation.body.response_format={type: json_object}"], "generation.body.response_format"),
        (["+generation.body.logprobs=true"], "generation.body.logprobs"),
    ),
)
def test_what_is_asked_for_and_not_given_is_an_error_at_the_start(asked, key, server: Running, tmp_path, potstill):
    outcome = potstill("generate", *overrides(server.url, prompts_file(tmp_path, ROWS)), *asked)
    assert outcome.code == 2
    assert f" {key}=" in outcome.words
    assert "is not given" in outcome.words
    assert len(server.prompts()) == 1


def test_a_limit_of_top_logprobs_is_found_out(tmp_path: Path, potstill):
    with endpoint(tmp_path, logprobs=5) as server:
        given = [*overrides(server.url, prompts_file(tmp_path, ROWS)), "+generation.body.logprobs=true"]
        outcome = potstill("generate", *given, "+generation.body.top_logprobs=20")
        assert "at most 5 came back" in outcome.words
        assert potstill("generate", *given, "+generation.body.top_logprobs=5").code == 0
    assert json.loads(exported()[0]["logprobs"])["content"][0]["token"] == "a"


def test_content_goes_into_columns_of_its_own_and_what_is_dropped_is_listed(server: Running, tmp_path, potstill):
    rows = [
        {"question": "SAY 2 and 2.\n#### 4", "answer": "so #### 4"},
        {"question": "SAY <think>hm</think>2 and 3.\n#### 5", "answer": "so #### 5"},
        {"question": "SAY wrong\n#### 9", "answer": "so #### 8"},
        {"question": "SAY no mark", "answer": "so #### 1"},
        {"question": "CUT SAY short\n#### 1", "answer": "so #### 1"},
    ]
    prompts = tmp_path / "gsm.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [*overrides(server.url, prompts), "generation=rationale", "generation.prompt='{{ question }}'"]
    assert potstill("generate", *given).code == 0
    first, second = exported()
    assert (first["rationale"], first["answer"], first["gold"]) == ("2 and 2.", "4", "4")
    assert (first["raw"], first["reasoning"]) == ("2 and 2.\n#### 4", None)
    assert (first["question"], first["source_answer"]) == (rows[0]["question"], "so #### 4")
    assert (second["reasoning"], second["rationale"]) == ("hm", "2 and 3.")
    assert sorted(dropped().values()) == [
        "gold: the answer is not 8",
        "malformed: the answer is not where answer_pattern looks for it",
        "truncated: ended by length",
    ]


def test_samples_are_asked_apart_or_together(server: Running, tmp_path: Path, potstill):
    given = overrides(server.url, prompts_file(tmp_path, ["a", "b"]), generation__temperature=0.7)
    keep = ["generation.samples=5", "generation.filters.duplicate=null"]
    assert potstill("generate", *given, *keep).code == 0
    assert Counter(server.prompts()) == {"a": 5, "b": 5}
    assert [(row["prompt"], row["sample"]) for row in exported()] == [(p, n) for p in "ab" for n in range(5)]
    assert potstill("generate", *given, *keep, "generation.choices_per_request=2").code == 0
    assert [request["body"].get("n") for request in server.asked()[10:]].count(2) == 4
    assert len(exported()) == 10


def test_a_judge_drops_with_its_words(server: Running, tmp_path: Path, potstill):
    given = overrides(server.url, prompts_file(tmp_path, ["SAY good", "SAY bad"]))
    judge = ['generation.judge.prompt=\'SAY {{ "yes" if raw == "good" else "no" }}\'']
    assert potstill("generate", *given, *judge).code == 0
    assert [row["raw"] for row in exported()] == ["good"]
    assert dropped() == {"SAY bad": "judge: said 'no'"}
    calls = len(server.prompts())
    assert potstill("generate", *given, *judge).code == 0
    assert len(server.prompts()) == calls == 4


def test_prompts_that_are_test_items_are_refused_before_anything_is_asked(server: Running, tmp_path: Path, potstill):
    given = overrides(server.url, prompts_file(tmp_path, ["one", "A test  item!"]))
    test = prompts_file(tmp_path, ["a TEST item"], "test.jsonl")
    outcome = potstill("generate", *given, f"data.source.test={test}")
    assert outcome.code == 2
    assert "of the rows are test items of data.source.test: 1" in outcome.words
    hashes = tmp_path / "manifest.txt"
    hashes.write_text(text_hash("a test item") + "\n")
    assert "are test items of" in potstill("generate", *given, f"generation.test_manifest={hashes}").words
    assert server.prompts() == []


def test_an_override_of_the_terms_stays_in_manifest_report_and_card(server: Running, tmp_path: Path, potstill):
    given = overrides(server.url, prompts_file(tmp_path, ROWS), teacher__terms__train_on_outputs="unknown")
    assert potstill("generate", *given).code == 2
    assert server.prompts() == []
    reason = "asked them, permission of 2026-01-30"
    assert potstill("generate", *given, f"teacher.terms.override_reason='{reason}'").code == 0
    assert json.loads(Path("out/manifest.json").read_text())["override_reason"] == reason
    assert manifest()["override_reason"] == reason
    assert reason in Path("out/export/README.md").read_text()


def test_status_says_where_a_generation_stands(server: Running, tmp_path: Path, potstill):
    assert potstill("generate", "--status").code == 2
    assert potstill("generate", *overrides(server.url, prompts_file(tmp_path, ROWS))).code == 0
    outcome = potstill("generate", "--status")
    assert outcome.code == 0
    facts = json.loads(outcome.out)
    assert (facts["state"], facts["total"], facts["done"], facts["spent"]["calls"]) == ("finished", 20, 20, 20)
    status = Path("runs/generate/ledger/status.json")
    status.write_text(status.read_text().replace("finished", "running"))
    assert json.loads(potstill("generate", "--status").out)["state"] == "killed"


def test_without_a_terminal_progress_is_lines_of_json(server: Running, tmp_path: Path, potstill):
    outcome = potstill("generate", *overrides(server.url, prompts_file(tmp_path, ROWS), report_every_s=0.01))
    lines = [json.loads(line) for line in outcome.err.splitlines() if line.startswith("{")]
    assert lines[-1]["state"] == "finished"
    assert len(lines) > 2
    assert {"done", "cached", "failed", "requests_per_s", "tokens_per_s", "concurrency", "eta_s"} <= lines[0].keys()


def test_a_key_appears_nowhere(tmp_path: Path, potstill, monkeypatch):
    key = "not-a-known-shape-4711-secret"
    monkeypatch.setenv("SOME_NAME", key)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with endpoint(tmp_path, key=key) as server:
        given = overrides(server.url, prompts_file(tmp_path, [*ROWS, "REFUSED"]), logger="wandb")
        outcomes = [potstill("generate", *given, "teacher.endpoint.api_key_env=SOME_NAME", "--debug")]
        assert outcomes[0].code == 0
        monkeypatch.setenv("SOME_NAME", f"{key}-wrong")  # the endpoint repeats it in its refusal
        changed = [*given, "generation.max_tokens=9"]
        outcomes.append(potstill("generate", *changed, "teacher.endpoint.api_key_env=SOME_NAME"))
        assert outcomes[1].code == 1
        outcomes.append(potstill("generate", *given, f"teacher.endpoint.api_key_env={key}", "run.dir=third"))
        outcomes.append(potstill("generate", *given, f"+teacher.endpoint.api_key={key}", "run.dir=fourth"))
        assert [outcome.code for outcome in outcomes[2:]] == [2, 2]
    log = Path(server.log)
    found = [path for path in tmp_path.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    assert found == []
    assert not [outcome for outcome in outcomes if key in outcome.out + outcome.err]
    assert log.exists()
    shutil.rmtree("wandb", ignore_errors=True)
