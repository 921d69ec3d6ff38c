"""The shape of the tree: which way imports point, how long files grow, what must not be written down.

A check takes the root of a tree and names every offence in it. Each runs twice: on this repository, where it must find
nothing, and on a small tree with one offence, which it must find.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPO = Path(__file__).resolve().parent.parent
Check = Callable[[Path], list[str]]

ARITHMETIC = ("numpy", "scipy", "sklearn", "torch", "potstill.errors")
# All that these files of src/potstill may import, besides the standard library. By prefix of the dotted name.
MAY_IMPORT = {
    "losses/*.py": (
        "torch",
        "triton",
        "potstill.losses",
        "potstill.errors",
    ),  # triton: a part of torch for accelerators
    "objective.py": ("torch", "potstill.losses", "potstill.errors", "potstill.signals.protocol", "potstill.data.batch"),
    "evaluation/metrics.py": ARITHMETIC,
    "evaluation/statistics.py": ARITHMETIC,
    "evaluation/slices.py": ARITHMETIC,
    "signals/protocol.py": ("torch", "potstill.data.batch", "potstill.losses.heads", "potstill.losses.sparse"),
    "audit/*.py": (
        *("numpy", "scipy", "sklearn", "datasketch", "sliceline", "cleanlab"),
        *("potstill.audit", "potstill.data.content", "potstill.errors", "potstill.evaluation.statistics"),
    ),
    "data/batch.py": ("torch",),
    "errors.py": (),
}
# The module sees protocols and pure functions; what stands behind them is the commands' business.
MUST_NOT_IMPORT = {
    "module.py": (
        "datasets",
        "transformers",
        "potstill.evaluation",
        "potstill.reporting",
        "potstill.tracking",
        "potstill.models.load",
        "potstill.models.initialise",
        "potstill.models.tokenizers",
        "potstill.signals.live",
        "potstill.signals.remembered",
        "potstill.data.module",
        "potstill.data.build",
    ),
}
# Which files of src may import what. By prefix of the dotted name, and of the path.
ONLY_IN = {
    "hydra": ("potstill/config/", "potstill/commands/", "potstill/cli.py", "hydra_plugins/"),
    "wandb": ("potstill/tracking/", "potstill/reporting/"),
    "potstill.config": ("potstill/config/", "potstill/commands/", "potstill/cli.py"),
    "potstill.commands": ("potstill/commands/", "potstill/cli.py"),
    "potstill.cli": ("potstill/__main__.py",),
    "potstill.reporting": ("potstill/reporting/", "potstill/commands/"),
    "potstill": ("potstill/",),  # Hydra's plugins stand alone
}
TREES = ("src", "tests", "benchmarks", "conf", "sweeps", "docs", ".ci")
MAX_FILE_LINES = 399
MAX_FUNCTION_LINES = 60  # without the docstring
MAX_SAME_LINES = 5  # of two losses
WORDS_OF_A_ROW_COUNT = re.compile(r"len\(|\.numel\(|\.size\(0\)|\.shape\[0\]|num_rows|total_rows|row_count")
AVERAGING_LOSSES = re.compile(r"(^|\.)(\w+_loss|cross_entropy|kl_div|binary_cross_entropy(_with_logits)?)$")
NUMBERLESS = re.compile(r"\b(T[O]DO|F[I]XME|X[X]X|H[A]CK)\b(?!\(#\d+\))")
MACHINE_PATH = re.compile(r"(?<![\w.$}~])/(tmp|root|home|work|Users)/\w")
VARIABLE = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?![\w(])")
PACKAGE_INDEX = re.compile(r"--(extra-)?index[-]url|--find[-]links|https?://\S+/simple\b")


def python_files(root: Path, *trees: str) -> Iterator[tuple[str, ast.Module]]:
    for tree in trees:
        for file in sorted((root / tree).rglob("*.py")):
            yield file.relative_to(root).as_posix(), ast.parse(file.read_text(encoding="utf-8"))


def text_lines(root: Path, suffixes: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """`path:number` and text of every line written by hand; of files with one of these suffixes, if any is given."""
    files = [file for file in root.iterdir() if file.is_file() and file.name != ".git"]  # a file in a linked worktree
    files += [file for tree in TREES for file in (root / tree).rglob("*") if file.is_file()]
    for file in sorted(files):
        if "__pycache__" in file.parts or (suffixes and file.suffix not in suffixes):
            continue
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        yield from ((f"{file.relative_to(root)}:{number}", line) for number, line in enumerate(lines, 1))


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that is imported, wherever in the file, `import_module("...")` included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from ((node.lineno, str(name.value)) for name in node.args[:1] if isinstance(name, ast.Constant))


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def imports_of(root: Path) -> Iterator[tuple[str, int, str]]:
    for path, tree in python_files(root, "src"):
        yield from ((path.removeprefix("src/"), line, name) for line, name in imported(tree))


def layers(root: Path) -> list[str]:
    package, standard = root / "src" / "potstill", tuple(sys.stdlib_module_names)
    found = []
    for pattern in (*MAY_IMPORT, *MUST_NOT_IMPORT):
        may, must_not = MAY_IMPORT.get(pattern), MUST_NOT_IMPORT.get(pattern, ())
        files = sorted(package.glob(pattern))
        if not files:
            found.append(f"{pattern}: no such file, so the rule for it holds nothing")
        for file in files:
            for line, name in imported(ast.parse(file.read_text(encoding="utf-8"))):
                stranger = may is not None and not within(name, (*standard, *may))
                if stranger or within(name, must_not):
                    found.append(f"{file.relative_to(package)}:{line} imports {name}")
    return found


def reserved_imports(root: Path) -> list[str]:
    return [
        f"{path}:{line} imports {name}"
        for path, line, name in imports_of(root)
        for module, places in ONLY_IN.items()
        if within(name, (module,)) and not path.startswith(places)
    ]


def undeclared_imports(root: Path) -> list[str]:
    """What src imports and pyproject.toml does not declare: it is there today because something else brings it."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [texts for extra, texts in project["optional-dependencies"].items() if extra != "dev"]
    declared = {Requirement(text).name.lower() for texts in (project["dependencies"], *extras) for text in texts}
    known = {*sys.stdlib_module_names, "potstill", "hydra_plugins", "triton", ""}  # triton comes with torch
    known |= {name.replace("-", "_") for name in declared}  # of an extra that is not installed
    for module, distributions in importlib.metadata.packages_distributions().items():
        if declared & {distribution.lower().replace("_", "-") for distribution in distributions}:
            known.add(module)
    found = [(path, line, name) for path, line, name in imports_of(root) if name.split(".")[0] not in known]
    return [f"{path}:{line} imports {name}" for path, line, name in found]


def relative_imports(root: Path) -> list[str]:
    """They would slip past the other checks, and moving a file would break them."""
    return [f"{path}:{line} imports {name}" for path, line, name in imports_of(root) if name.startswith(".")]


def reads_of_conf(root: Path) -> list[str]:
    """Paths into conf/ outside of potstill.config. A sentence that mentions conf/ has spaces, a path has none."""
    found = []
    for path, tree in python_files(root, "src"):
        if not path.startswith("src/potstill/config/"):
            constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
            paths = [node for node in constants if re.fullmatch(r"(\S*/)?conf(/\S*)?", str(node.value))]
            found += [f"{path}:{node.lineno} reads {node.value}" for node in paths]
    return found


def averages_over_rows(root: Path) -> list[str]:
    """Averages over all elements, and quotients by what is called a number of rows, outside of losses/reduce.py."""
    found = []
    for path, tree in python_files(root, "src"):
        inside = path.startswith("src/potstill/losses/") or path == "src/potstill/objective.py"
        if inside and not path.endswith("/reduce.py"):
            expressions = [node for node in ast.walk(tree) if isinstance(node, ast.expr)]
            found += [f"{path}:{node.lineno} {ast.unparse(node)}" for node in expressions if averages(node)]
    return found


def averages(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return bool(WORDS_OF_A_ROW_COUNT.search(ast.unparse(node.right)))
    if not isinstance(node, ast.Call):
        return False
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    name = ast.unparse(node.func)
    if name.startswith(("F.", "functional.", "torch.nn.functional.")) and AVERAGING_LOSSES.search(name):
        return keywords.get("reduction") not in ("'none'", "'sum'")
    if not name.endswith(".mean"):
        return False
    positional = node.args[1:] if name == "torch.mean" else node.args
    dimension = ast.unparse(positional[0]) if positional else keywords.get("dim")
    return dimension in (None, "0")


def long_files(root: Path) -> list[str]:
    files = [file for tree in ("src", "tests", "benchmarks") for file in (root / tree).rglob("*.py")]
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    return [f"{file.relative_to(root)}: {length} lines" for file, length in lengths.items() if length > MAX_FILE_LINES]


def long_functions(root: Path) -> list[str]:
    found = []
    for path, tree in python_files(root, "src", "tests", "benchmarks"):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = (ast.get_docstring(node, clean=False) or "").splitlines()
                length = (node.end_lineno or node.lineno) - node.lineno + 1 - len(docstring)
                if length > MAX_FUNCTION_LINES:
                    found.append(f"{path}:{node.lineno} {node.name}: {length} lines")
    return found


def repeated_arithmetic(root: Path) -> list[str]:
    """Lines of a loss that stand in another as well, whatever the variables are called. Names of functions count."""
    places: dict[tuple[str, ...], set[str]] = {}
    for file in sorted((root / "src/potstill/losses").rglob("*.py")):
        text = file.read_text(encoding="utf-8").splitlines()
        functions = [node for node in ast.walk(ast.parse("\n".join(text))) if isinstance(node, ast.FunctionDef)]
        for node in functions:
            numbers = [
                number for statement in node.body[bool(ast.get_docstring(node)) :] for number in lines_of(statement)
            ]
            shapes = [(number, VARIABLE.sub("", text[number - 1]).replace(" ", "")) for number in numbers]
            shapes = [(number, shape) for number, shape in shapes if re.search(r"\w", shape)]
            for start in range(len(shapes) - MAX_SAME_LINES):
                run = tuple(shape for _, shape in shapes[start : start + MAX_SAME_LINES + 1])
                places.setdefault(run, set()).add(f"{file.relative_to(root)}:{shapes[start][0]}")
    return [" = ".join(sorted(found)) for found in places.values() if len(found) > 1]


def lines_of(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def deep_folders(root: Path) -> list[str]:
    """Below src, tests and the like: potstill/losses and loss/term are as deep as it goes."""
    folders = [folder for tree in TREES for folder in (root / tree).rglob("*") if folder.is_dir()]
    paths = [folder.relative_to(root) for folder in folders if folder.name != "__pycache__"]
    return [str(path) for path in paths if len(path.parts) > 3 and any((root / path).iterdir())]


def unfinished_work(root: Path) -> list[str]:
    return [f"{place} {line.strip()}" for place, line in text_lines(root) if NUMBERLESS.search(line)]


def machine_paths(root: Path) -> list[str]:
    return [f"{place} {line.strip()}" for place, line in text_lines(root) if MACHINE_PATH.search(line)]


def package_indexes(root: Path) -> list[str]:
    return [f"{place} {line.strip()}" for place, line in text_lines(root) if PACKAGE_INDEX.search(line)]


def letters_beyond_ascii(root: Path) -> list[str]:
    lines = text_lines(root, suffixes=(".py", ".yaml", ".toml"))
    return [f"{place} {line.strip()}" for place, line in lines if not line.isascii()]


def arithmetic(name: str) -> str:
    """A loss of six lines, its variables called after it."""
    lines = (f"{name} = {name}.exp()", f"{name} = {name}.log()", f"{name} = 2.0 * {name}.sum(dim=1)")
    return f"def loss_{name}({name}):\n" + "".join(f"    {line}\n" for line in (*lines, *lines))


LAYERED = {f"src/potstill/{pattern.replace('*', 'x')}": "" for pattern in (*MAY_IMPORT, *MUST_NOT_IMPORT)}
OFFENCES: list[tuple[Check, str, str]] = [
    (layers, "src/potstill/losses/x.py", "import numpy"),
    (layers, "src/potstill/losses/x.py", "def f():\n    from potstill.models import load"),
    (layers, "src/potstill/objective.py", "from potstill.signals.live import LiveTeacher"),
    (layers, "src/potstill/module.py", "from potstill.models.load import load_teacher"),
    (layers, "src/potstill/module.py", "from transformers import AutoModel"),
    (layers, "src/potstill/evaluation/statistics.py", "import pandas"),
    (reserved_imports, "src/potstill/module.py", "from hydra.utils import instantiate"),
    (reserved_imports, "src/potstill/data/x.py", "import importlib\nimportlib.import_module('hydra')"),
    (reserved_imports, "src/potstill/evaluation/x.py", "import wandb.sdk"),
    (reserved_imports, "src/potstill/data/x.py", "from potstill import config"),
    (reserved_imports, "src/potstill/config/x.py", "import potstill.commands.train"),
    (undeclared_imports, "src/potstill/data/x.py", "import pandas"),
    (relative_imports, "src/potstill/losses/x.py", "from ..models import load"),
    (reads_of_conf, "src/potstill/data/x.py", "folder = root / 'conf'"),
    (reads_of_conf, "src/potstill/commands/x.py", "open(f'{root}/conf/loss/{name}.yaml')"),
    (averages_over_rows, "src/potstill/losses/x.py", "loss = values.mean()"),
    (averages_over_rows, "src/potstill/losses/x.py", "loss = torch.mean(values, dim=0)"),
    (averages_over_rows, "src/potstill/losses/x.py", "loss = F.cross_entropy(logits, labels)"),
    (averages_over_rows, "src/potstill/losses/x.py", "loss = F.kl_div(q, p, reduction='batchmean')"),
    (averages_over_rows, "src/potstill/objective.py", "loss = values.sum() / len(values)"),
    (long_files, "tests/test_x.py", "pass\n" * 400),
    (long_functions, "src/potstill/x.py", "def f():\n" + "    pass\n" * 61),
    (repeated_arithmetic, "src/potstill/losses/x.py", arithmetic("a") + arithmetic("b")),
    (deep_folders, "tests/data/text/deep/x.py", ""),
    (unfinished_work, "docs/x.md", "TO" + "DO: say why"),
    (machine_paths, "conf/x.yaml", "path: " + "/".join(["", "home", "someone"])),
    (package_indexes, "Makefile", "\tpip install --find" + "-links wheels potstill"),
    (letters_beyond_ascii, "src/potstill/x.py", "alpha = '\N{GREEK SMALL LETTER ALPHA}'"),
]
CHECKS = list(dict.fromkeys(check for check, _, _ in OFFENCES))


def plant(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_repository_keeps(check: Check) -> None:
    assert check(REPO) == []


@pytest.mark.parametrize(("check", "path", "text"), OFFENCES, ids=lambda value: getattr(value, "__name__", None))
def test_an_offence_is_found(check: Check, path: str, text: str, tmp_path: Path) -> None:
    plant(tmp_path, LAYERED)
    assert check(tmp_path) == [], "the tree offends before the offence is planted"
    plant(tmp_path, {path: text})
    assert len(check(tmp_path)) == 1


@pytest.mark.parametrize(
    ("check", "path", "text"),
    [
        (layers, "src/potstill/losses/x.py", "import math\nimport torch.nn.functional as F\nfrom torch import Tensor"),
        (reserved_imports, "src/hydra_plugins/x.py", "import hydra"),
        (averages_over_rows, "src/potstill/losses/x.py", "d = v.mean(dim=-1) / temperature"),
        (averages_over_rows, "src/potstill/losses/x.py", "F.cross_entropy(logits, labels, reduction='none')"),
        (averages_over_rows, "src/potstill/losses/reduce.py", "loss = values.sum() / total_rows"),
        (repeated_arithmetic, "src/potstill/losses/x.py", arithmetic("a") + arithmetic("b").replace("exp", "abs")),
        (reads_of_conf, "src/potstill/config/paths.py", "CONF = root / 'conf'"),
        (reads_of_conf, "src/potstill/data/x.py", "'see conf/data for the options'"),
        (unfinished_work, "docs/x.md", "TO" + "DO(#12): with the next release of torch"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_allowed_stays_allowed(check: Check, path: str, text: str, tmp_path: Path) -> None:
    plant(tmp_path, LAYERED | {path: text})
    assert check(tmp_path) == []


def test_a_rule_for_a_renamed_file_is_not_kept_in_silence(tmp_path: Path) -> None:
    plant(tmp_path, LAYERED)
    (tmp_path / "src/potstill/objective.py").rename(tmp_path / "src/potstill/objectives.py")
    assert [offence.split(":")[0] for offence in layers(tmp_path)] == ["objective.py"]
