"""What a user installs: a wheel that carries its config, ranges that admit what was tested."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPO = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
APART = ("ray", "parity", "quantised")  # extras whose packages are not part of dev: pyproject.toml says why of each
EXTRAS_TESTED = [texts for name, texts in EXTRAS.items() if name not in APART]
DECLARED = [Requirement(text) for texts in (PROJECT["dependencies"], *EXTRAS_TESTED) for text in texts]


def pins() -> dict[str, Version]:
    lines = (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def closure(requirements: list[Requirement]) -> set[str]:
    """Names of all distributions that these requirements bring on this machine, potstill itself left out."""
    found: set[tuple[str, str]] = set()
    while requirements:
        requirement = requirements.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) not in found and name != "potstill":
                found.add((name, extra))
                wanted = [Requirement(text) for text in importlib.metadata.distribution(name).requires or []]
                requirements += [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


def test_no_package_of_the_closure_is_left_to_the_day_of_the_installation() -> None:
    assert closure(list(DECLARED)) - pins().keys() == set()


@pytest.mark.parametrize("requirement", [one for one in DECLARED if one.name != "potstill"], ids=str)
def test_a_range_admits_what_was_tested(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_no_pin_names_one_build() -> None:
    """torch==2.13.0+cpu would exclude the builds for accelerators, and exists on no public index."""
    assert [name for name, version in pins().items() if version.local] == []


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_malicious_releases_of_lightning_stay_excluded(version: str) -> None:
    lightning = [requirement for requirement in DECLARED if requirement.name.endswith("lightning")]
    assert lightning
    assert not any(requirement.specifier.contains(version) for requirement in lightning)


def succeed(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that knows neither the checkout nor the shared data."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "POTSTILL_SHARED")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    succeed(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, REPO, cwd=folder)
    return next(folder.glob("potstill-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds the wheel, and borrows its dependencies from the running one.

    A .pth line puts the running environment's packages on the path. A .pth file found *there* is not read, so that the
    editable potstill of the checkout, which is one, cannot be what answers.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    succeed(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel, cwd=folder)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return python.parent


@pytest.mark.slow
def test_the_wheel_carries_every_config_file_and_nothing_foreign(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    configs = {f"potstill/{file.relative_to(REPO).as_posix()}" for file in (REPO / "conf").rglob("*.yaml")}
    assert configs
    assert configs - set(names) == set()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"potstill", "hydra_plugins"}
    assert "hydra_plugins/__init__.py" not in names, "other plugins would be hidden: it is a namespace"


@pytest.mark.slow
def test_the_installed_package_is_the_wheel_and_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    found = succeed(installed / "python", "-c", "import potstill; print(potstill.__file__)", cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(installed.parent)


@pytest.mark.slow
def test_the_wheel_trains_outside_of_the_checkout(installed: Path, tmp_path: Path) -> None:
    succeed(installed / "potstill", "train", "debug=one_batch", "logger=none", cwd=tmp_path)
    assert list(tmp_path.rglob("student/model.safetensors")), "no student was written below the current directory"
