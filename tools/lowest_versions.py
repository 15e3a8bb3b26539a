"""Prints the lowest versions that `pyproject.toml` allows, as constraints for pip: `make test-lowest` installs them."""

from __future__ import annotations

import tomllib
from pathlib import Path


def lowest(project: Path) -> list[str]:
    """Returns `name==version` for each dependency of the package and of its tests."""
    stated = tomllib.loads(project.read_text("utf-8"))["project"]
    wanted = [*stated["dependencies"], *stated["optional-dependencies"]["dev"]]
    return [requirement.replace(">=", "==", 1) for requirement in wanted]


if __name__ == "__main__":
    print("\n".join(lowest(Path(__file__).parents[1] / "pyproject.toml")))
