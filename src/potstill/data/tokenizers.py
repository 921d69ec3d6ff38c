"""A tokenizer trained on a corpus of one's own, and what tells two tokenizers apart."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from potstill.data.content import content_hash, hash_all

END = "<|end|>"  # begins every example too, so that its first real token is predicted


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of all that decides token ids. What earlier calls set (truncation, padding) does not count."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else {"vocabulary": tokenizer.get_vocab()}
    rules = {name: rule for name, rule in rules.items() if name not in ("truncation", "padding")}
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    settings = (type(tokenizer).__name__, tokenizer.padding_side, getattr(tokenizer, "chat_template", None))
    return content_hash(rules, special, *settings)


def byte_level_bpe(texts: Sequence[str], vocabulary_size: int) -> PreTrainedTokenizerBase:
    """Byte-level byte-pair encoding trained on `texts`; kept in the cache, so that a corpus is paid for once."""
    directory = cache_directory() / "tokenizers" / content_hash("bpe", END, vocabulary_size, hash_all(texts))
    if not directory.exists():
        _save(_train(texts, vocabulary_size), directory)
    return PreTrainedTokenizerFast.from_pretrained(directory)


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/potstill`, by default `~/.cache/potstill`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "potstill"


def _train(texts: Sequence[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    end = (END, tokenizer.token_to_id(END))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[end])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END)


def _save(tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write beside, then rename: another process sees the whole tokenizer or none."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = tempfile.mkdtemp(dir=directory.parent)
    tokenizer.save_pretrained(temporary)
    try:
        os.rename(temporary, directory)
    except OSError:  # another process was first, with the same content
        if not directory.exists():
            raise
        shutil.rmtree(temporary)
