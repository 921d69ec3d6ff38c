"""Servers that tests ask: each a process of its own, speaking HTTP, with a log of what it was asked.

`POTSTILL_SERVERS` names the Python of an environment with transformers[serving] and litellm[proxy]; without it, this
one's. Where a package is missing, tests skip and say so.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

REPO = Path(__file__).resolve().parent.parent.parent
PYTHON = os.environ.get("POTSTILL_SERVERS", sys.executable)


@dataclass
class Running:
    """One server. log: what it printed, or wrote of each request."""

    process: subprocess.Popen[Any]
    port: int
    log: Path
    restart: Callable[[], subprocess.Popen[Any]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def asked(self) -> list[dict[str, Any]]:
        """The requests that `endpoint` answered, in order."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def prompts(self) -> list[str]:
        return [request["prompt"] for request in self.asked()]

    def num_calls(self) -> int:
        """Answered requests for text: by the access log of uvicorn, or of `endpoint`."""
        if self.log.name == "asked.jsonl":
            return len(self.asked())
        return sum('"POST /v1/' in line and "completions" in line for line in self.log.read_text().splitlines())

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        self.process = self.restart()


@contextmanager
def endpoint(directory: Path, **options: Any) -> Iterator[Running]:
    """`tests.generation.endpoint`, whose requests are told of in `directory/asked.jsonl`."""
    log, port = directory / "asked.jsonl", options.pop("port", None) or free_port()
    words = [f"{name}={value}" for name, value in {"port": port, **options}.items()]
    command = [sys.executable, "-m", "tests.generation.endpoint", str(log), *words]
    with started(command, directory / "endpoint.log", port, "/") as running:
        running.log = log
        yield running


@contextmanager
def transformers_serve(model: str, directory: Path) -> Iterator[Running]:
    require("fastapi", "uvicorn", "openai", "transformers")
    port = free_port()
    command = [PYTHON, "-m", "transformers.cli.transformers", "serve", model]
    command += ["--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    with started(command, directory / "serve.log", port, "/health") as running:
        yield running


@contextmanager
def litellm_proxy(directory: Path, upstream: str, rpm: int) -> Iterator[Running]:
    """A proxy in front of `upstream` that answers 429 beyond `rpm` requests a minute."""
    require("litellm")
    port, config = free_port(), directory / "litellm.json"
    deployment = {"model": "openai/m", "api_base": upstream, "api_key": "none", "rpm": rpm}
    settings = {"optional_pre_call_checks": ["enforce_model_rate_limits"], "num_retries": 0, "disable_cooldowns": True}
    open_to_all = {"dangerously_permit_weak_or_unset_master_key": True}
    content = {"model_list": [{"model_name": "m", "litellm_params": deployment}], "router_settings": settings}
    content["general_settings"] = open_to_all
    config.write_text(json.dumps(content))  # JSON is YAML
    command = [str(Path(PYTHON).parent / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
    command += ["--port", str(port)]
    with started(command, directory / "litellm.log", port, "/health/liveliness") as running:
        yield running


@contextmanager
def started(command: list[str], log: Path, port: int, ready: str) -> Iterator[Running]:
    """Killed at the end, whatever happened."""

    def start() -> subprocess.Popen[Any]:
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        with log.open("a") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=REPO, env=environment)
        try:
            wait_for(f"http://127.0.0.1:{port}{ready}", process, log)
        except BaseException:
            process.kill()
            raise
        return process

    running = Running(start(), port, log, start)
    try:
        yield running
    finally:
        running.signal(signal.SIGCONT)
        running.kill()


def wait_for(address: str, process: subprocess.Popen[Any], log: Path, seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            httpx.get(address, timeout=2.0)
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"not up after {seconds:.0f} s: {log.read_text()[-2000:]}")


def require(*modules: str) -> None:
    code = f"import importlib.util as u; raise SystemExit(any(u.find_spec(m) is None for m in {modules!r}))"
    if subprocess.run([PYTHON, "-c", code], capture_output=True, check=False).returncode:
        pytest.skip(f"{PYTHON} has no {', '.join(modules)}: pip install 'potstill[serve-tests]' (POTSTILL_SERVERS)")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def tiny_chat_model(directory: Path) -> str:
    """A causal model of random weights, over bytes, whose texts differ from prompt to prompt."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(["<eos>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")
    fast.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"eos_token_id": 0, "pad_token_id": 0, "bos_token_id": None}
    config = AutoConfig.for_model(
        "llama", vocab_size=len(vocabulary), max_position_embeddings=512, initializer_range=0.5, **small, **ends
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    fast.save_pretrained(directory)
    return str(directory)


def prompts_file(directory: Path, texts: list[str], name: str = "prompts.jsonl") -> Path:
    path = directory / name
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def overrides(url: str, prompts: Path, **changes: Any) -> list[str]:
    """What a command line needs at least, its terms filled in. changes: dotted keys with __ for each dot."""
    terms = prompts.parent / "terms.txt"
    terms.write_text("You may train on outputs.\n")
    given = {
        "data.source.train": prompts,
        "teacher.model": "m",
        "teacher.revision": "1",
        "teacher.endpoint.base_url": url,
        "teacher.endpoint.api_key_env": "null",
        "teacher.terms.provider": "us",
        "teacher.terms.model": "${teacher.model}",
        "teacher.terms.revision": "${teacher.revision}",
        "teacher.terms.url": "file:terms.txt",
        "teacher.terms.retrieved": "2026-01-31",
        "teacher.terms.text": terms,
        "teacher.terms.sha256": hashlib.sha256(terms.read_bytes()).hexdigest(),
        "teacher.terms.reviewer": "somebody",
        "teacher.terms.train_on_outputs": "yes",
        "limits.first_wait_s": 0.01,
        "logger": "none",
        "run.dir": "out",
        "generation.max_tokens": 16,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    return [f"{key}={value}" for key, value in given.items()]
