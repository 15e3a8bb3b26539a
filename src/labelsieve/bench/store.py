"""Storage of the cells of an experiment: one line of JSON each, appended when it is measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelsieve.core.errors import RunError
from labelsieve.core.files import read_json, write_json

CELLS, EXPERIMENT, RUNS = "cells.jsonl", "experiment.json", "runs"


@dataclass(frozen=True)
class Store:
    """The folder of one experiment.

    Attributes:
        folder: Path of the folder.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path, *, name: str) -> Store:
        """Opens the folder of an experiment, new or from an earlier run.

        Raises:
            RunError: It has another experiment or other files, or cannot be created.
        """
        if folder.exists() and not folder.is_dir():
            raise RunError(f"expected --out to be a folder, {folder} is a file; choose another name")
        if (folder / EXPERIMENT).is_file():
            other = read_json(folder / EXPERIMENT).get("name")
            if other != name:
                raise RunError(f"{folder} holds the results of {other}, not of {name}; choose another --out")
        elif folder.is_dir() and any(folder.iterdir()):
            raise RunError(f"{folder} holds other files and no {EXPERIMENT}; choose an empty or new folder")
        return cls(folder)

    def begin(self, experiment: Any) -> None:
        """Writes the experiment, and terminates the last line of cells, or removes it if it is truncated."""
        write_json(self.folder / EXPERIMENT, experiment)
        path = self.folder / CELLS
        content = path.read_bytes() if path.is_file() else b""
        start = content.rfind(b"\n") + 1
        if last_line := content[start:]:
            with path.open("rb+") as file:
                file.seek(len(content) if _is_json(last_line) else start)
                file.write(b"\n" if _is_json(last_line) else b"")
                file.truncate()

    def read(self) -> dict[str, Mapping[str, Any]]:
        """Returns the record of every cell by its key; lines truncated by a crash are skipped."""
        path = self.folder / CELLS
        if not path.is_file():
            return {}
        records = {}
        # splitlines() would split at other characters, too
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                record = json.loads(line)
                records[record["key"]] = record
            except (ValueError, TypeError, KeyError):
                continue
        return records

    def add(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Appends the record of one cell.

        Returns:
            The record as :meth:`read` returns it, so that the tables do not depend on when it was measured.

        Raises:
            RunError: The disk is full or read-only.
        """
        line = json.dumps(record, sort_keys=True, ensure_ascii=False) + "\n"
        try:
            with (self.folder / CELLS).open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise RunError(
                f"could not write {self.folder / CELLS}: {error.strerror}; free some space and run the same again"
            ) from error
        return json.loads(line)  # type: ignore[no-any-return]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
