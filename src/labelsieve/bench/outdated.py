"""Cells that were measured with other defaults than those of now.

The key of a cell is what its experiment says. What that leaves to the defaults of a detector or of phase 2 may change
from one version of labelsieve to the next, and then the same key stands for something else. Each cell therefore keeps
all its settings, which are compared with those of now.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from labelsieve.bench.cell_inputs import LATER
from labelsieve.bench.experiment import Experiment
from labelsieve.bench.tasks import TASKS
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import to_json

Records = Mapping[str, Mapping[str, Any]]
_SHOWN = 3  # methods that a line names


def up_to_date(experiment: Experiment, records: Records, *, progress: Progress | None = None) -> dict[str, Any]:
    """Leaves out the cells that are to be measured again because defaults have changed.

    A cell that does not keep all its settings, as those of before there was this, counts as up to date.

    Args:
        experiment: The experiment.
        records: The record of every cell that was measured, by its key.
        progress: Where to say in one line how many were left out, and what has changed.
    """
    cells = {experiment.key(cell): cell.method for cell in experiment.cells()}
    now = {name: _as_read(TASKS[experiment.task]().resolved(method)) for name, method in experiment.method.items()}
    changed = {
        key: change
        for key, method in cells.items()
        if key in records and (change := _change(records[key].get("resolved"), now[method]))
    }
    if changed and progress is not None:
        by_method = {cells[key]: change for key, change in changed.items()}
        said = [f"{method}: {change}" for method, change in by_method.items()]
        more = [f"{len(said) - _SHOWN} more methods"] if len(said) > _SHOWN else []
        progress.say(
            f"{len(changed)} of {len(cells)} cells were measured with other defaults and count as missing "
            f"({'; '.join([*said[:_SHOWN], *more])}); to keep their table, choose another --out"
        )
    return {key: record for key, record in records.items() if key not in changed}


def _as_read(settings: Any) -> Any:
    """Returns settings as they come back from a file."""
    return json.loads(to_json(settings))


def _change(kept: Any, now: Mapping[str, Any]) -> str:
    """Says which settings differ; one that only one side knows does not, since nothing can be said of it."""
    before: Any = None
    with suppress(ValueError, TypeError):  # there is none, or somebody changed it
        before = json.loads(kept)
    if not isinstance(before, dict):
        return ""
    before = {**LATER, **before}
    return ", ".join(
        f"{name} was {before[name]} and is {value}"
        for name, value in now.items()
        if name in before and before[name] != value
    )
