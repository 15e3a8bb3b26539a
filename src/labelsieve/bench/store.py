"""Where the cells of an experiment are kept: one line of JSON each, appended when it is measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelsieve.core.errors import RunError
from labelsieve.core.provenance import read_json, write_json

CELLS, EXPERIMENT, RUNS = "cells.jsonl", "experiment.json", "runs"


@dataclass(frozen=True)
class Store:
    """The folder of one experiment.

    Attributes:
        folder: Where its files lie.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path, *, name: str) -> Store:
        """Opens a folder for an experiment, a new one or one that was begun before.

        Raises:
            RunError: It holds another experiment or other files, or cannot be made.
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
        """Writes what the experiment is, and ends a last line that has no end, or takes it back if it is cut off."""
        write_json(self.folder / EXPERIMENT, experiment)
        path = self.folder / CELLS
        content = path.read_bytes() if path.is_file() else b""
        begin = content.rfind(b"\n") + 1
        if last := content[begin:]:
            with path.open("rb+") as file:
                file.seek(len(content) if _is_json(last) else begin)
                file.write(b"\n" if _is_json(last) else b"")
                file.truncate()

    def read(self) -> dict[str, Mapping[str, Any]]:
        """Returns the record of every cell by its key; lines that a crash cut off are left out."""
        path = self.folder / CELLS
        if not path.is_file():
            return {}
        records = {}
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):  # a text may hold other ends
            try:
                record = json.loads(line)
                records[record["key"]] = record
            except (ValueError, TypeError, KeyError):
                continue
        return records

    def add(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Appends the record of one cell.

        Returns:
            The record as :meth:`read` gives it, so that the tables are the same whether it was measured just now or
            before a crash.

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
