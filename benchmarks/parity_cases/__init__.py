"""All comparisons with losses of other projects, for `benchmarks/parity.py` and tests/parity."""

from benchmarks.parity_cases import (
    of_liger,
    of_sentence_transformers,
    of_textbrewer,
    of_torchdistill,
    of_torchtune,
    of_trl,
)

MODULES = (of_trl, of_liger, of_torchtune, of_torchdistill, of_textbrewer, of_sentence_transformers)
CASES = [case for module in MODULES for case in module.CASES]
