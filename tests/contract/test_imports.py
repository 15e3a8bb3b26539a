"""Imports point only to the left, and what only prints help loads nothing heavy."""

from __future__ import annotations

import ast
import itertools
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import labelsieve
from labelsieve.cli import VERBS

ROOT = Path(labelsieve.__file__).parent
REPOSITORY = Path(__file__).parents[2]
# CONTRIBUTING.md: "imports point only to the left".
ORDER = (
    ("core",),
    ("metrics", "tag_metrics", "flagging", "records"),
    ("data",),
    ("vlm",),
    ("detect",),
    ("curation",),
    ("verdicts",),
    ("run_folder", "pipeline", "diagnosis", "review", "tags"),
    ("report", "finetune"),
    ("app",),
    ("demo",),
    ("bench",),
    ("cli", "commands"),
    ("", "__main__"),  # the package itself, which names everything
)
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
HEAVY = (
    "torch",
    "torchvision",
    "transformers",
    "accelerate",
    "datasets",
    "sklearn",
    "scipy",
    "pandas",
    "matplotlib",
    "cleanlab",
    "pyarrow",
    "peft",
    "timm",
    "tokenizers",
    "safetensors",
)

FILES = sorted(ROOT.rglob("*.py"))


def part_of(file: Path) -> str:
    """Returns the first name below the package, or an empty string for the package itself."""
    first = file.relative_to(ROOT).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Yields line and part of every import from our own package, those in functions and for types included."""
    for line, module in modules_of(file):
        first = module.split(".")[1]
        yield line, first if first in RANK else ""


@cache
def modules_of(file: Path) -> tuple[tuple[int, str], ...]:
    """Returns line and name of what is imported from our own package, `labelsieve.x` where that names no module."""
    return tuple(_modules(file))


def _modules(file: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: import from labelsieve, not relatively"
            # `from labelsieve import x` may name a module
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            package, _, rest = module.partition(".")
            if package == "labelsieve" and rest != "__version__":
                yield node.lineno, f"labelsieve.{rest}"


def test_imports_point_only_to_the_left() -> None:
    missing = {part_of(file) for file in FILES} - set(RANK)
    assert not missing, f"{missing} have no place in the order of CONTRIBUTING.md"
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {other}"
        for file in FILES
        for line, other in imported(file)
        if RANK[other] > RANK[part_of(file)]
    ]
    assert not wrong, "they import what lies to their right"


def test_no_imports_go_in_a_circle() -> None:
    modules = {".".join(("labelsieve", *file.relative_to(ROOT).with_suffix("").parts)): file for file in FILES}
    modules = {name.removesuffix(".__init__"): file for name, file in modules.items()}
    graph = {name: {_owner(found, modules) for _, found in modules_of(file)} for name, file in modules.items()}
    for name, found in graph.items():
        found.discard(name)
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


def _owner(name: str, modules: Iterable[str]) -> str:
    """Returns the module that holds what an import names."""
    return max((module for module in modules if f"{name}.".startswith(f"{module}.")), key=len)


def test_the_imports_are_found() -> None:
    assert {"data", "vlm", "detect", "core"} <= {part for _, part in imported(ROOT / "detect" / "inputs.py")}
    assert "report" in {part for _, part in imported(ROOT / "demo" / "run.py")}, "imports in functions count too"


def loaded_after(code: str, *, among: Sequence[str] = HEAVY) -> list[str]:
    """Runs code in a fresh Python and returns which heavy libraries it loaded."""
    tail = f"; import json, sys; print(json.dumps(sorted(set({among!r}) & set(sys.modules))), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stderr.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import labelsieve; assert 'DeFT' in dir(labelsieve); labelsieve.__version__") == []
    assert "pyarrow" in loaded_after("import labelsieve; labelsieve.Verdicts"), "names are loaded when they are used"


def test_a_review_begins_without_torch() -> None:
    code = "import labelsieve.app.serving, labelsieve.app.session, labelsieve.app.server"
    assert loaded_after(code, among=("torch", "transformers")) == []


def test_help_loads_nothing_heavy() -> None:
    assert loaded_after("from labelsieve.cli import main; assert main(['--help']) == 0") == []
    helps = [[verb, "--help"] for verb in VERBS] + [["scan", "--detector", "gmm", "--help"]]
    every = (
        f"import labelsieve.cli as cli\nfor words in {helps!r}:\n"
        "    try:\n        code = cli.main(words)\n    except SystemExit as end:\n        code = end.code\n"
        "    assert code == 0, (words, code)\npass"
    )
    assert loaded_after(every) == []


def test_list_loads_nothing_heavy() -> None:
    assert loaded_after("from labelsieve.cli import main; assert main(['list']) == 0") == []


def test_the_version_is_told_without_any_library() -> None:
    code = "from labelsieve.cli import main; assert main(['--version']) == 0"
    assert loaded_after(code, among=(*HEAVY, "numpy", "tyro", "rich")) == []


def test_type_checkers_see_what_the_package_has() -> None:
    """A name in `_HOME` alone is found, but has the type `Any`."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    imported = {
        alias.name: str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for name, home in labelsieve._HOME.items():
        assert imported.get(name) == f"labelsieve.{home}", name


def test_public_names_are_there() -> None:
    assert [name for name in labelsieve.__all__ if getattr(labelsieve, name, None) is None] == []
    assert set(labelsieve.__all__) <= set(dir(labelsieve))


def test_no_module_has_the_name_of_a_function() -> None:
    """Importing a module puts its name into the package, in the place of what the package has there."""
    assert not {file.stem for file in ROOT.glob("*.py")} & set(labelsieve.__all__)
    assert not {folder.name for folder in ROOT.iterdir() if folder.is_dir()} & set(labelsieve.__all__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'sift'"):
        labelsieve.sift  # noqa: B018


# ------------------------------------------------------------------------------------- what the repository says of it


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = re.search(r"^version: (\S+)$", (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited is not None and cited[1] == project["version"]


def test_contributing_says_what_every_dependency_is_for() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[<>=~\[ ]", each)[0] for each in wanted}
    page = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Dependencies")[1].split("\n## ")[0]
    first_column = "".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`([\w-]+)`", first_column)) - {*project["optional-dependencies"]} == names


def test_make_lists_every_target() -> None:
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert targets is not None
    make = shutil.which("make")
    if make is None:
        pytest.skip("there is no make")
    listed = subprocess.run([make, "-C", str(REPOSITORY)], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^make ([\w-]+) +\S", listed, re.MULTILINE) == targets[1].split()
