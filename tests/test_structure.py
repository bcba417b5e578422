"""The shape of the package: what imports what, how light it is, what it declares."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sdlab

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sdlab"

# Along the flow of the work: each module imports only from those before it. New modules take their place.
ORDER = [
    "words",
    "maps",
    "mini",
    "files",
    "templates",
    "notebook",
    "thumbnails",
    "typeset",
    "subject",
    "prompts",
    "config",
    "machine",
    "experiment",
    "verdict",
    "formats",
    "models",
    "cards",
    "exports",
    "profiles",
    "homeworks",
    "photos",
    "sampling",
    "control",
    "images",
    "training",
    "tables",
    "panels",
    "scores",
    "workers",
    "sweeps",
    "reports",
    "course",
    "cli",
]
HEAVY = {"torch", "numpy", "PIL", "diffusers", "transformers", "peft", "accelerate", "matplotlib", "tyro"}


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def module_of(path: Path) -> str:
    """`training` for sdlab/training/loop.py and for sdlab/training.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Full names of all that a file imports, inside functions and under TYPE_CHECKING too."""
    package = ["sdlab", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    own = module_of(path)
    assert own in ORDER, f"sdlab.{own} has no place in ORDER yet: give it one in {__file__}"
    allowed = {own, "__version__", *ORDER[: ORDER.index(own)]}
    for name, line in imports(path):
        parts = name.split(".")
        if parts[0] == "sdlab":
            imported = parts[1] if len(parts) > 1 else "the package itself (import from its modules instead)"
            assert imported in allowed, f"{path}:{line}: sdlab.{own} may not import {imported}"


def test_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = distributions_in(project["dependencies"], *project["optional-dependencies"].values())
    distributions = packages_distributions()
    for path in sources():
        for name, line in imports(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top == "sdlab":
                continue
            owners = {canonicalize_name(owner) for owner in distributions.get(top, [top])}
            assert owners & declared, f"{path}:{line}: {top} is not in pyproject.toml"


def test_constraints_pin_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = distributions_in([line for line in lines if re.fullmatch(r"[\w.-]+==[\w.]+", line)])
    assert distributions_in(project["dependencies"], extras["notebooks"], extras["dev"]) <= pinned


def distributions_in(*requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for group in requirements for line in group}


def seconds(code: str) -> float:
    """The best of three runs of a fresh Python, which leaves out what else the machine was doing."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
        times.append(time.perf_counter() - start)
    return min(times)


def test_import_is_light() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, sdlab; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout.split()
    assert not HEAVY & set(loaded)
    assert seconds("import sdlab") - seconds("pass") <= 0.3


def test_stages_that_read_what_is_there_load_no_networks() -> None:
    code = "import sys, sdlab.images, sdlab.scores, sdlab.tables, sdlab.reports; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert not {"torch", "diffusers", "transformers", "peft", "matplotlib", "cv2", "typst"} & set(loaded)


@pytest.mark.parametrize("name", sdlab.__all__)
def test_public_names_resolve(name: str) -> None:
    value = getattr(sdlab, name)
    assert type(value).__name__ != "module"
    assert name in dir(sdlab)


def test_a_public_function_survives_the_import_of_its_module() -> None:
    code = (
        "import sdlab.tables, sdlab.images, sdlab; assert callable(sdlab.table) and callable(sdlab.generate)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_wrong_name_is_an_attribute_error_that_lists_the_right_ones() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'dreambooth'.*DreamBooth"):
        sdlab.dreambooth  # noqa: B018
