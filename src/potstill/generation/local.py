"""A causal language model that `transformers` loads, as a teacher of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from potstill.errors import UserError, nearest_hint
from potstill.fingerprint import content_hash
from potstill.generation.batching import LocalTeacher

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TransformersTeacher(LocalTeacher):
    """path: a local directory, whose content is part of every key, or a hub name with its `revision`."""

    def __init__(
        self, path: str, revision: str | None = None, dtype: str = "float32", device: str = "auto", batch_size: int = 8
    ) -> None:
        if dtype not in DTYPES:
            raise UserError("teacher.endpoint.dtype", dtype, "is no such type.", nearest_hint(dtype, DTYPES))
        is_local = Path(path).is_dir()
        super().__init__(f"transformers:{content_hash(Path(path)) if is_local else f'{path}@{revision}'}", batch_size)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(path, revision=revision, padding_side="left")
            model: Any = AutoModelForCausalLM.from_pretrained(path, revision=revision, dtype=DTYPES[dtype])
        except (OSError, ValueError) as error:
            problem = f"cannot be loaded as a causal language model: {str(error).splitlines()[0]}"
            raise UserError("teacher.endpoint.path", path, problem, "Give a directory or a hub name.") from error
        accelerator = torch.accelerator.current_accelerator()
        self.device = torch.device(device) if device != "auto" else accelerator or torch.device("cpu")
        self.model = model.to(self.device).eval()
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token  # masked: which token it is has no effect

    @torch.inference_mode()
    def answer(self, prompts: Sequence[Any], options: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
        chats = [prompt for prompt in prompts if not isinstance(prompt, str)]
        texts = [self._rendered(prompt) for prompt in chats] if chats else list(prompts)
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=not chats).to(self.device)
        if options.get("seed") is not None:
            torch.manual_seed(options["seed"])
        output: Any = self.model.generate(**inputs, **_generation(options), pad_token_id=self.tokenizer.pad_token_id)
        written = output[:, inputs["input_ids"].shape[1] :]
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        return [self._said(ids.tolist(), read, options) for ids, read in zip(written, lengths, strict=True)]

    def _rendered(self, messages: Sequence[Mapping[str, Any]]) -> str:
        if not self.tokenizer.chat_template:
            problem = "needs a chat template, which this tokenizer does not have."
            raise UserError("generation.api", "chat", problem, "Set generation.api=completions")
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _said(self, ids: list[int], num_read: int, options: Mapping[str, Any]) -> tuple[str, str, int, int]:
        """Up to the end of sequence, or the first stop text."""
        ends = self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        end = next((place for place, token in enumerate(ids) if token in ends), None)
        kept = ids if end is None else ids[:end]
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        stops = [text.index(stop) for stop in options.get("stop") or [] if stop in text]
        reason = "stop" if stops or end is not None else "length"
        return text[: min(stops)] if stops else text, reason, num_read, len(kept) + (end is not None)


def _generation(options: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {"max_new_tokens": options["max_tokens"], "do_sample": options.get("temperature", 1.0) > 0}
    if given["do_sample"]:
        given |= {"temperature": options.get("temperature", 1.0), "top_p": options.get("top_p", 1.0), "top_k": 0}
    return given
