"""Checkpoints: the state of training after an epoch, the identity of its run, and how to resume from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from labelsieve.core.engine import Engine
from labelsieve.core.errors import CheckpointError, setting, shown
from labelsieve.core.files import write_atomically
from labelsieve.core.provenance import to_json

CHECKPOINT = "state.safetensors"
# Increase it when the same settings train differently, so that older checkpoints are rejected.
_VERSION = 3
# Identifies the run of a checkpoint: `settings`, with seed and precision, and `fingerprints` of data and model.
RunIdentity = Mapping[str, Mapping[str, Any]]


def run_identity(settings: Any, engine: Engine, **fingerprints: str) -> RunIdentity:
    """Returns the identity of a run: settings, seed, precision, and fingerprints of data and model.

    Args:
        settings: The settings, a dataclass.
        engine: Provides seed and precision.
        **fingerprints: Fingerprints by name, such as `data`.
    """
    recorded = {
        "kind": type(settings).__name__,
        "version": _VERSION,
        **asdict(settings),
        "seed": engine.seed,
        "precision": engine.precision,
    }
    return {"settings": recorded, "fingerprints": fingerprints}


def _differences(text: str, identity: RunIdentity) -> str:
    """Describes how the run of a checkpoint differs from this one; empty if they are the same."""
    if text == to_json(identity):
        return ""
    current = json.loads(to_json(identity))
    try:
        stored = json.loads(text)
        settings, fingerprints = stored["settings"], stored["fingerprints"]
        if settings["kind"] != current["settings"]["kind"]:  # another class of settings
            return f"it is of {settings['kind']}, not of {current['settings']['kind']}"
        if settings.get("version") != _VERSION:
            return "it is of another version of labelsieve"
        changed = [
            f"{name} was {shown(settings.get(name, 'not there'))} and is {shown(value)}"
            for name, value in current["settings"].items()
            if settings.get(name) != value
        ]
        fingerprints_changed = [
            name.replace("_", " ") for name, value in current["fingerprints"].items() if fingerprints.get(name) != value
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        changed, fingerprints_changed = [], []
    changed += [f"the {' and the '.join(fingerprints_changed)} changed"] if fingerprints_changed else []
    return "; ".join(changed) or "it is of another version of labelsieve"


def write_checkpoint(
    engine: Engine, tensors: Mapping[str, Tensor], *, identity: RunIdentity, history: list[dict[str, Any]]
) -> None:
    """Writes the state after an epoch, in the main process, if the engine has a checkpoint folder.

    Args:
        engine: Provides the folder.
        tensors: The state of training.
        identity: Identity of the run, from :func:`run_identity`.
        history: One record per finished epoch.

    Raises:
        RunError: The disk is full or read-only.
    """
    if engine.checkpoint is None or not engine.accelerator.is_main_process:
        return
    state = {name: value.cpu().contiguous() for name, value in tensors.items()}
    data = save(state, metadata={"identity": to_json(identity), "history": json.dumps(history)})
    with write_atomically(engine.checkpoint / CHECKPOINT) as part:
        part.write_bytes(data)  # unlike save_file, this raises OSError on a full disk


def read_checkpoint(engine: Engine, *, identity: RunIdentity) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Returns the tensors and history of :func:`write_checkpoint`; both are empty if there is nothing to resume.

    Raises:
        CheckpointError: The checkpoint belongs to another run, or cannot be read.
    """
    path = _to_resume(engine)
    if path is None:
        return {}, []
    metadata, tensors = _read(path)
    if differences := _differences(metadata.get("identity", ""), identity):
        raise CheckpointError(
            f"the checkpoint {path} belongs to another run: {differences}; "
            f"resume with what it was made with, or start again with {setting('overwrite')}"
        )
    history: list[dict[str, Any]] = json.loads(metadata["history"])
    engine.progress.say(f"resuming after epoch {len(history)}")
    return tensors, history


def _to_resume(engine: Engine) -> Path | None:
    """Returns the path of the checkpoint to resume from; None if there is none or `resume` is off."""
    path = engine.checkpoint / CHECKPOINT if engine.checkpoint is not None else None
    return path if path is not None and engine.resume and path.is_file() else None


def seconds_before(engine: Engine) -> float:
    """Returns the training time of the epochs in the checkpoint to resume from; 0 if there is none."""
    try:
        return float(sum(epoch["seconds"] for epoch in _metadata(engine, "history") or ()))
    except (ValueError, KeyError, TypeError):  # read_checkpoint() reports a damaged header
        return 0.0


def stored_settings(engine: Engine) -> Mapping[str, Any]:
    """Returns the settings of the checkpoint to resume from; empty if there is none or it lacks them.

    Raises:
        CheckpointError: It cannot be read.
    """
    identity = _metadata(engine, "identity")
    settings = identity.get("settings") if isinstance(identity, dict) else None
    return settings if isinstance(settings, dict) else {}


def _metadata(engine: Engine, name: str) -> Any:
    """Returns an entry in the header of the checkpoint to resume from; None if there is none or it is not JSON.

    Raises:
        CheckpointError: The checkpoint cannot be read.
    """
    path = _to_resume(engine)
    with suppress(ValueError, KeyError):  # read_checkpoint() reports a damaged header
        return None if path is None else json.loads(_read(path, header_only=True)[0][name])
    return None


def _read(path: Path, *, header_only: bool = False) -> tuple[Mapping[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:  # refuses a file that was cut off
            names = () if header_only else file.keys()  # `file` itself cannot be iterated
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"the checkpoint {path} is damaged or cannot be read; start again with {setting('overwrite')}"
        ) from error
