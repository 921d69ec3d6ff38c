from __future__ import annotations

import pytest

from potstill.tracking.secrets import HIDDEN, redact

TOKEN = "hf_" + "a1" * 12


@pytest.mark.parametrize("name", ["api_key", "WANDB_API_KEY", "hub_token", "token", "client_secret", "db_password"])
def test_what_is_named_like_a_credential_is_hidden(name):
    assert redact({"endpoint": {name: "value"}}) == {"endpoint": {name: HIDDEN}}


@pytest.mark.parametrize("name", ["max_tokens", "pad_token", "eos_token", "tokenizer", "micro_batch_tokens", "key"])
def test_what_only_sounds_like_a_credential_is_kept(name):
    assert redact({name: "value"}) == {name: "value"}


def test_an_unset_credential_is_not_made_to_look_set():
    assert redact({"token": None}) == {"token": None}


def test_command_line_overrides_are_hidden_by_name():
    assert redact(["train", "seed=3", "+endpoint.api_key=abc"]) == ["train", "seed=3", f"+endpoint.api_key={HIDDEN}"]


def test_a_token_is_hidden_by_its_shape_anywhere():
    assert redact({"note": f"with {TOKEN}!"}) == {"note": f"with {HIDDEN}!"}


def test_a_resolved_environment_variable_is_hidden_under_any_name(monkeypatch):
    monkeypatch.setenv("MY_SERVICE_TOKEN", "plain-looking")
    assert redact({"path": "https://host/plain-looking/x"}) == {"path": f"https://host/{HIDDEN}/x"}


def test_a_password_in_an_address_is_hidden():
    assert redact("https://me:word@host/repository") == f"https://{HIDDEN}@host/repository"


def test_numbers_and_the_given_object_are_left_alone():
    given = {"optim": {"lr": 1.0e-3, "betas": [0.9, 0.999]}, "token": "x"}
    assert redact(given) == {"optim": {"lr": 1.0e-3, "betas": [0.9, 0.999]}, "token": HIDDEN}
    assert given["token"] == "x"
