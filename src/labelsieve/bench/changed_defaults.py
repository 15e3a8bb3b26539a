"""Detects cells that were measured with other defaults than the current ones.

The key of a cell contains only the settings of its experiment file. The defaults of detectors and of phase 2 may change
between versions of labelsieve. Each cell therefore stores all its settings, which are compared with the current ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from labelsieve.bench.experiment import Experiment
from labelsieve.bench.table_values import Records
from labelsieve.bench.tasks import TASKS
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import to_json

_MAX_METHODS = 3  # methods named in a line


def without_changed_defaults(
    experiment: Experiment, records: Records, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Drops the cells that have to be measured again because defaults have changed.

    Settings that only one side has are ignored.

    Args:
        experiment: The experiment.
        records: The record of each measured cell, by its key.
        progress: Where to print the number of dropped cells, and the changes.
    """
    cells = {experiment.key(cell): cell.method for cell in experiment.cells()}
    current = {
        name: _json_round_trip(TASKS[experiment.task]().resolved(method)) for name, method in experiment.method.items()
    }
    changed = {
        key: change
        for key, method in cells.items()
        if key in records and (change := _describe_changes(records[key].get("resolved"), current[method]))
    }
    if changed and progress is not None:
        by_method = {cells[key]: change for key, change in changed.items()}
        descriptions = [f"{method}: {change}" for method, change in by_method.items()]
        more = [f"{len(descriptions) - _MAX_METHODS} more methods"] if len(descriptions) > _MAX_METHODS else []
        progress.say(
            f"{len(changed)} of {len(cells)} cells were measured with other defaults and count as missing "
            f"({'; '.join([*descriptions[:_MAX_METHODS], *more])}); to keep their table, choose another --out"
        )
    return {key: record for key, record in records.items() if key not in changed}


def _json_round_trip(settings: Any) -> Any:
    """Returns settings as they are read from JSON."""
    return json.loads(to_json(settings))


def _describe_changes(stored: Any, current: Mapping[str, Any]) -> str:
    """Describes the settings that differ."""
    earlier: Any = None
    with suppress(ValueError, TypeError):  # missing or edited
        earlier = json.loads(stored)
    if not isinstance(earlier, dict):
        return ""
    return ", ".join(
        f"{name} was {earlier[name]} and is {value}"
        for name, value in current.items()
        if name in earlier and earlier[name] != value
    )
