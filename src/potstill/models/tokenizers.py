"""Tokenizers: loading one, and holding two to be the same before their models' logits are compared."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from potstill.errors import UserError
from potstill.models.hub import reading

# Case, accents, digits, punctuation, white space, another script and an emoji: what normalisers and splitters differ in
PROBE = "Distil THE caf\u00e9's 3,141 drops\n\tinto  one: \u84b8\u7559 \U0001f943 x_y = f(z)."
_NUM_DIFFERENCES = 3  # named in an error


def load_tokenizer(
    path: str, revision: str | None = None, trust_remote_code: bool = False, *, key: str = "student.tokenizer"
) -> PreTrainedTokenizerBase:
    """The tokenizer at a hub name or directory; UserError under `key` where there is none."""
    with reading(path, key) as name:
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)


def check_same_tokenizer(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> None:
    """UserError where the same text would become different ids: each model would answer another question."""
    differences = _differences(student.get_vocab(), teacher.get_vocab(), "token")
    differences += _differences(_special_ids(student), _special_ids(teacher), "special token")
    if not differences and student(PROBE)["input_ids"] != teacher(PROBE)["input_ids"]:
        differences = [f"they cut {PROBE[:21]!r}... into {_pieces(student)} and {_pieces(teacher)}"]
    if differences:
        problem = (
            f"differs from the teacher's tokenizer in {len(differences)} places: "
            f"{'; '.join(differences[:_NUM_DIFFERENCES])}. Row by row, their logits would mean different things."
        )
        fix = f"Use the teacher's: student.tokenizer={teacher.name_or_path or 'TEACHER_DIRECTORY'}"
        raise UserError("student.tokenizer", student.name_or_path or type(student).__name__, problem, fix)


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    names = tokenizer.special_tokens_map
    return {name: (token, tokenizer.convert_tokens_to_ids(token)) for name, token in names.items()}


def _differences(student: Mapping[str, object], teacher: Mapping[str, object], kind: str) -> list[str]:
    names = sorted(name for name in student.keys() | teacher.keys() if student.get(name) != teacher.get(name))
    return [f"{kind} {name!r} is {student.get(name)} here, {teacher.get(name)} there" for name in names]


def _pieces(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(PROBE)["input_ids"])[:8]  # type: ignore[index]
