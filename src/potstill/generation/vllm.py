"""A model that vLLM runs in this process, as a teacher of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from potstill.errors import UserError
from potstill.generation.batching import LocalTeacher

PACKAGE = "vllm"  # no extra of potstill: it wants a torch of its own, for an accelerator


class VLLMTeacher(LocalTeacher):
    """path: a hub name with its `revision`, or a local directory. options: further arguments of `vllm.LLM`."""

    def __init__(
        self, path: str, revision: str | None = None, batch_size: int = 256, options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"vllm:{path}@{revision}", batch_size)
        try:
            self._vllm: Any = import_module(PACKAGE)
        except ImportError as error:
            fix = "pip install vllm, or serve the model and choose teacher=openai_compatible"
            raise UserError("teacher.endpoint", "vllm", f"is not installed: {error}.", fix) from error
        self.model = self._vllm.LLM(model=path, revision=revision, **(options or {}))

    def answer(self, prompts: Sequence[Any], options: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
        names = ("max_tokens", "temperature", "top_p", "seed", "stop")
        sampling = self._vllm.SamplingParams(**{name: options[name] for name in names if options.get(name) is not None})
        ask = self.model.generate if isinstance(prompts[0], str) else self.model.chat
        outputs = ask(list(prompts), sampling, use_tqdm=False)
        return [
            (said.text, said.finish_reason or "stop", len(output.prompt_token_ids), len(said.token_ids))
            for output in outputs
            for said in output.outputs[:1]
        ]
