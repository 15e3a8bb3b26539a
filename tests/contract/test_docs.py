"""The documentation: what Sphinx does not see, since it reads `docs/` alone and only when it is built."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import labelsieve as ls
from labelsieve.commands.listing import entries
from labelsieve.detect.deft.registry import WARMUP_LOSSES
from labelsieve.detect.registry import DETECTORS
from labelsieve.finetune.registry import LOSSES
from labelsieve.finetune.settings import Adaptation
from labelsieve.flagging import FlagRule
from labelsieve.report.exports.registry import FORMATS

ROOT = Path(__file__).parents[2]
NAMES = sorted({*ls.__all__} - {"__version__"})
OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")

BANNED = (
    r"pictures?|untouched|untrained|towers?|whole[ -]numbers?|anew|parted|mend(?:s|ed|ing)?|nobody's|drawings"
    r"|tells whether|plainly|plain (?:training|objectives?|losses|images?|photos?|model)"
    r"|judg(?:es?|ed|ing|ements?)|settl(?:es?|ed|ing)|told|bears?"
    r"|whoever|somebody|nobody|hand(?:s|ed)? out|at hand|stood|upon|spoken|speaks?|lying|none of ours|by itself"
    r"|just now|takes? for|next to nothing|one another|far it is|its kin|nothing but|be it|gone|wanted|went on"
    r"|strange(?:st|ly)?"
)
"""Words of our own, for which the field has another: image, zero-shot model, image encoder, integer, fix, score, ...

And words that have to be read twice, for which there is a simpler verb, noun or number.
"""

BANNED_NAMES = (
    "(?i:.*(?:judg|tower).*)"
    "|_*(?:found|feed|mine|ours|asked|said|told|wanted|most|least|few|fewest|here|there|deal|dealt|hands?|liked|looks|squares"
    "|anew|ahead|whole|apart|beside|room|gone|own|rest|somebody|places|settled|Found|Given|Ahead|Wanted|Symptoms|Site|Way"
    "|Build|Looks|Dealt)"
    "|(?:[A-Z_]*_)?(?:MOST|LEAST|FEW|FEWEST|READ|LITTLE)(?:_[A-Z_]*)?"
)
"""Names that do not say what they hold: verdicts, a path, a maximum, fold ids, ..."""

EXCEPTIONS_OF_NAMES = {
    ("review/statement.py", "found"): "a key of audit.json",
    ("review/statement.py", "wanted"): "the same",
    ("review/audit.py", "found"): "the same",
    ("review/audit.py", "wanted"): "the same",
    ("review/status_lines.py", "found"): "the same",
}

EXCEPTIONS = {
    ("docs/bench.md", "drawing"): "the source of experiments, which has results by that name",
    ("docs/results.md", "drawing"): "the same",
    ("docs/performance.md", "drawing"): "the same",
    ("docs/performance.md", "tower"): "what benchmarks/frozen.py printed",
    ("docs/results.md", "tower"): "a method in the published results",
    ("src/labelsieve/detect/zero_shot.py", "picture"): "a text that the model reads",
    ("docs/performance.md", "picture"): "what benchmarks/step.py printed",
    ("docs/performance.md", "plainly"): "what benchmarks/step.py printed",
    ("docs/results.md", "untrained"): "a method in the published results",
}


def anchors(page: Path) -> set[str]:
    """Returns the anchors of the headings of a page, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_a_public_name_is_in_the_reference_with_an_example() -> None:
    listed = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8").split()
    assert [name for name in NAMES if name not in listed] == []
    assert [name for name in NAMES if ">>> " not in getattr(ls, name).__doc__] == []


@pytest.mark.parametrize("page", OUTSIDE)
def test_links_into_the_documentation_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [each for each in re.findall(r"\]\(([^)]+)\)", text) if "://" not in each]
    for link in links:
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_a_list_of_pages() -> None:
    lists = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    listed = {
        line.strip().split("<")[-1].rstrip(">")
        for block in re.findall(r"```\{toctree\}(.*?)```", lists, re.DOTALL)
        for line in block.splitlines()
    }
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem in listed or page.stem == "index", f"{page.name} is in no toctree"


def test_every_list_of_the_reference_has_its_table() -> None:
    text = (ROOT / "docs" / "reference" / "choices.md").read_text(encoding="utf-8")
    assert {option for option, _, _ in entries(None)} == set(re.findall("<!-- from code: (.+) -->", text))


def test_every_format_of_an_export_is_described() -> None:
    about = {"page": (ROOT / "docs" / "export.md").read_text(encoding="utf-8"), "docstring": str(ls.export.__doc__)}
    for place, text in about.items():
        assert {name for name in FORMATS if f"`{name}`" not in text} == set(), place


def number_of(text: str) -> float | None:
    """Returns the first number of a text."""
    found = re.search(r"(?<![\w.])\d[\d.]*(?:e-?\d+)?", text)
    return float(found[0].rstrip(".")) if found else None


def defaults_of(settings: Any) -> dict[str, Any]:
    return {field.name.replace("_", "-"): field.default for field in fields(settings)}


def defaults_on_pages() -> Iterator[tuple[str, Any, str]]:
    """Yields each default that a page states: the option, its default, and what the page says."""
    for name in DETECTORS:
        defaults = defaults_of(DETECTORS[name])
        page = (ROOT / "docs" / "detectors" / f"{name}.md").read_text()
        for option, value in re.findall(r"`--([a-z-]+)` \(([^)]*)\)", page):
            if option in defaults and number_of(value) is not None:
                yield f"{name} --{option}", defaults[option], value
    defaults = defaults_of(Adaptation)
    section = (ROOT / "docs/adapt.md").read_text().partition("## How it is trained")[2].partition("\n## ")[0]
    for options, values in re.findall(r"^\| (`--[^|]*) \| ([^|]*) \|", section, re.M):
        for option, value in zip(re.findall(r"--([a-z-]+)", options), values.split(","), strict=True):
            if option in defaults:
                yield f"adapt --{option}", defaults[option], value


def test_defaults_on_pages_are_those_of_the_code() -> None:
    stated = list(defaults_on_pages())
    assert len(stated) > 15
    for option, default, value in stated:
        is_number = isinstance(default, int | float) and not isinstance(default, bool)
        assert default == (number_of(value) if is_number else value.strip(" `")), f"{option}: {default}, not {value}"


@pytest.mark.parametrize("name", [field.name for field in fields(FlagRule)])
def test_what_a_flagging_rule_has_is_explained(name: str) -> None:
    keys = (ROOT / "docs/report.md").read_text().partition("## Keys of `run.json`")[2].partition("\n## ")[0]
    assert f"`{name}`" in keys


def test_the_losses_are_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "losses-and-metrics.md").read_text(encoding="utf-8")
    for loss in (*LOSSES.values(), *WARMUP_LOSSES.values()):
        assert f".{loss.__name__}\n" in text


CHANGES = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and line.count(" | ") == 3
][1:]
"""The rows of the table of changes: change, file, line, test."""


def test_what_a_change_touches_is_there(subtests: pytest.Subtests) -> None:
    for change, file, line, test in CHANGES:
        with subtests.test(change):
            for path in re.findall(r"`((?:\w+/)*[\w.]+\.(?:py|md|toml|csv|html\.jinja))`", f"{file} {line}"):
                place = path if path.startswith(("docs/", "tests/", "tools/")) else f"src/labelsieve/{path}"
                there = (ROOT / place).parent if "NAME" in place else ROOT / place
                assert there.exists(), path
            for table, path in re.findall(r"`([A-Z_]+)` in `([\w/]+\.py)`", line):
                code = (ROOT / "src" / "labelsieve" / path).read_text(encoding="utf-8")
                assert re.search(rf"^{table}\b.* = ", code, re.MULTILINE), f"{table} in {path}"
            tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", test)
            assert tests
            for path, name in tests:
                assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"


def test_the_table_of_changes_is_whole() -> None:
    assert len(CHANGES) == 20 + 2  # a change of either kind that the code has a place for, an experiment, a number


def test_a_package_lists_its_modules(subtests: pytest.Subtests) -> None:
    """Where a package says what its modules are, all are named but those of one detector."""
    of_detectors = {entry.place.partition(":")[0] for entry in DETECTORS.entries.values()}
    packages = (ROOT / "src" / "labelsieve").rglob("__init__.py")
    docs = {path.parent: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for path in packages}
    lists = {folder: set(re.findall(r"`(\w+\.py|\w+/)`", doc)) for folder, doc in docs.items() if "\n* `" in doc}
    assert len(lists) >= 4
    for folder, listed in lists.items():
        with subtests.test(folder.name):
            package = ".".join(folder.relative_to(ROOT / "src").parts)
            modules = {path.name for path in folder.glob("*.py") if f"{package}.{path.stem}" not in of_detectors}
            parts = {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
            assert {*modules, *parts} - {"__init__.py"} <= listed
            assert all((folder / name).exists() for name in listed)


SCRIPT = re.compile(
    r"(?P<comment>//[^\n]*|/\*.*?\*/)"
    r"|(?P<string>\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)"
    r"|(?:(?<=[(!])|(?<=: ))/(?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\\n*])+/",  # a pattern, which may contain quotes
    re.DOTALL,
)
"""Comments, strings and patterns of a script."""

DECLARED = re.compile(
    r"\b(?:const|let|var)\s+(?:\{([^{}]*)\}|\[([^\[\]]*)\]|(\w+))"  # a variable, or several
    r"|\bclass\s+(\w+)|\bfunction\s+(\w+)\s*\(((?:[^()]|\([^()]*\))*)\)"
    r"|(\w+)\s*=>|\(([^()]*)\)\s*=>"
    r"|^\s+(?:async\s+)?(\w+)\(([^()]*)\)\s*\{|\bthis\.(\w+)\s*=[^=]",  # a method, an attribute
    re.MULTILINE,
)
"""The names that a script declares, each in a group, or several with defaults."""


def prose_of_script(path: Path) -> Iterator[str]:
    """Yields comments and strings of a script, without code that they quote and without strings of one word."""
    for token in SCRIPT.finditer(path.read_text(encoding="utf-8")):
        if token["comment"]:
            yield re.sub(r"`[^`\n]*`", "", token["comment"])
        elif token["string"] and " " in token["string"]:
            yield re.sub(r"\$\{[^{}]*\}", "", token["string"])


def names_of_script(path: Path) -> set[str]:
    """Returns the names that a script declares."""
    code = SCRIPT.sub('""', path.read_text(encoding="utf-8"))
    groups = (group for match in DECLARED.finditer(code) for group in match.groups() if group)
    parts = (part.partition("=")[0].rpartition(":")[2] for group in groups for part in group.split(","))
    return {name for part in parts for name in re.findall(r"\w+", part)}


def prose(path: Path) -> Iterator[str]:
    """Yields what a person reads in a file, without code that it quotes and without strings of one word."""
    if path.suffix == ".js":
        yield from prose_of_script(path)
        return
    if path.suffix != ".py":
        yield re.sub(r"`[^`\n]*`|\{[{%].*?[%}]\}|class=\"[^\"]*\"", "", path.read_text(encoding="utf-8"))
        return
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type in (tokenize.STRING, tokenize.COMMENT) and " " in token.string:
                code = r"`[^`\n]*`|\{[^{}]*\}|^ +\w+(?=: )"  # names, values, and the parameters of a docstring
                yield re.sub(code, "", token.string, flags=re.MULTILINE)


def used_words() -> Iterator[tuple[str, str]]:
    """Yields files and the banned words in them, in the singular."""
    docs = [page for page in (ROOT / "docs").rglob("*.md") if (ROOT / "docs" / "results") not in page.parents]
    sources = [path for kind in ("*.py", "*.jinja", "*.js") for path in (ROOT / "src" / "labelsieve").rglob(kind)]
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *docs, *sources):
        for text in prose(path):
            for word in re.findall(rf"\b(?:{BANNED})\b", text, re.IGNORECASE):
                yield path.relative_to(ROOT).as_posix(), word.lower().removesuffix("s")


def test_prose_has_the_terms_of_the_field() -> None:
    assert set(used_words()) == set(EXCEPTIONS)


def used_names() -> Iterator[tuple[str, str]]:
    """Yields modules of the package and the banned names in them, also that of a module."""
    root = ROOT / "src" / "labelsieve"
    for path in root.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))  # those in f-strings, too
        names = {getattr(node, field, None) for node in nodes for field in ("id", "arg", "attr", "name", "asname")}
        for name in {name for name in names if isinstance(name, str)} | {path.stem}:
            if re.fullmatch(BANNED_NAMES, name):
                yield path.relative_to(root).as_posix(), name
    for path in root.rglob("*.js"):
        for name in names_of_script(path) | {path.stem}:
            if re.fullmatch(BANNED_NAMES, name):
                yield path.relative_to(root).as_posix(), name


def test_names_say_what_they_hold() -> None:
    assert set(used_names()) == set(EXCEPTIONS_OF_NAMES)


def bases_of(node: ast.ClassDef) -> Iterator[str]:
    """Yields the names of the base classes, without their type arguments."""
    for base in node.bases:
        inner = base.value if isinstance(base, ast.Subscript) else base
        if isinstance(inner, ast.Name):
            yield inner.id


def explained(name: str, classes: Mapping[str, ast.ClassDef], node: ast.ClassDef) -> bool:
    """Returns whether a base class in the package has a method of that name, where its parameters are explained."""
    bases = [classes[base] for base in bases_of(node) if base in classes]
    return any(name in methods_of(base) or explained(name, classes, base) for base in bases)


def methods_of(node: ast.ClassDef | ast.Module) -> dict[str, ast.FunctionDef]:
    """Returns the public functions in the body of a class or module by name."""
    return {each.name: each for each in node.body if isinstance(each, ast.FunctionDef) and each.name[0] != "_"}


def test_public_functions_explain_their_parameters() -> None:
    """From three parameters on; methods that a base class explains need not."""
    root = ROOT / "src" / "labelsieve"
    modules = {path: ast.parse(path.read_text(encoding="utf-8")) for path in root.rglob("*.py")}
    classes = {each.name: each for module in modules.values() for each in module.body if isinstance(each, ast.ClassDef)}
    lacking = []
    for path, module in modules.items():
        functions = [*methods_of(module).values()]
        for node in (each for each in module.body if isinstance(each, ast.ClassDef) and each.name[0] != "_"):
            functions += [each for name, each in methods_of(node).items() if not explained(name, classes, node)]
        for function in functions:
            arguments = [each.arg for each in (*function.args.args, *function.args.kwonlyargs)]
            if len({*arguments} - {"self", "cls"}) > 2 and "Args:" not in (ast.get_docstring(function) or ""):
                lacking.append(f"{path.relative_to(root)}: {function.name}")
    assert lacking == []
