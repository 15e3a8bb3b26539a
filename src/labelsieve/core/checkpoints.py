"""Checkpoints: the state of training after an epoch, what run it belongs to, and how a run goes on from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from labelsieve.core.engine import Engine
from labelsieve.core.errors import CheckpointError, shown
from labelsieve.core.provenance import to_json, write_atomically

CHECKPOINT = "state.safetensors"
# Goes up when the same settings train in another way: a checkpoint from before does not go on then.
_VERSION = 2
# What a checkpoint belongs to: `settings`, with seed and precision, and `fingerprints` of data and model.
RunIdentity = Mapping[str, Mapping[str, Any]]


def run_identity(settings: Any, engine: Engine, **fingerprints: str) -> RunIdentity:
    """Returns what a checkpoint belongs to: a run with the same settings, seed and precision.

    Args:
        settings: A dataclass.
        engine: Seed and precision.
        **fingerprints: By the name of what has it, such as `data`.
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
    """Returns in which settings, and in what else, a checkpoint is of another run; empty where it is of this one."""
    if text == to_json(identity):
        return ""
    now = json.loads(to_json(identity))
    try:
        before = json.loads(text)
        settings, fingerprints = before["settings"], before["fingerprints"]
        if settings["kind"] != now["settings"]["kind"]:  # which has other settings altogether
            return f"it is of {settings['kind']}, not of {now['settings']['kind']}"
        if settings.get("version") != _VERSION:
            return "it is of another version of labelsieve"
        changed = [
            f"{name} was {shown(settings.get(name, 'not there'))} and is {shown(value)}"
            for name, value in now["settings"].items()
            if settings.get(name) != value
        ]
        others = [
            name.replace("_", " ") for name, value in now["fingerprints"].items() if fingerprints.get(name) != value
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        changed, others = [], []
    changed += [f"the {' and the '.join(others)} changed"] if others else []
    return "; ".join(changed) or "it is of another version of labelsieve"


def write_checkpoint(
    engine: Engine, tensors: Mapping[str, Tensor], *, identity: RunIdentity, history: list[dict[str, Any]]
) -> None:
    """Writes the state after an epoch, in the main process, if checkpoints are kept.

    Args:
        engine: Says where.
        tensors: Whatever training goes on from.
        identity: What the state belongs to, from :func:`run_identity`.
        history: One record for each finished epoch.

    Raises:
        RunError: The disk is full or read-only.
    """
    if engine.checkpoint is None or not engine.accelerator.is_main_process:
        return
    whole = {name: value.cpu().contiguous() for name, value in tensors.items()}
    data = save(whole, metadata={"identity": to_json(identity), "history": json.dumps(history)})
    with write_atomically(engine.checkpoint / CHECKPOINT) as part:
        part.write_bytes(data)  # unlike save_file, this says in an OSError that the disk is full


def read_checkpoint(engine: Engine, *, identity: RunIdentity) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Reads what :func:`write_checkpoint` wrote; nothing where there is nothing to resume.

    Raises:
        CheckpointError: The state belongs to something else, or cannot be read.
    """
    path = _to_resume(engine)
    if path is None:
        return {}, []
    metadata, tensors = _read(path)
    if different := _differences(metadata.get("identity", ""), identity):
        raise CheckpointError(
            f"the checkpoint {path} belongs to another run: {different}; "
            "resume with what it was made with, or start again with --overwrite"
        )
    history: list[dict[str, Any]] = json.loads(metadata["history"])
    engine.progress.say(f"resuming after epoch {len(history)}")
    return tensors, history


def _to_resume(engine: Engine) -> Path | None:
    """Returns the checkpoint to go on from, None where there is none or it is not asked for."""
    path = engine.checkpoint / CHECKPOINT if engine.checkpoint is not None else None
    return path if path is not None and engine.resume and path.is_file() else None


def seconds_before(engine: Engine) -> float:
    """Returns how long those epochs took that a checkpoint to resume from already has; 0 where there is none."""
    path = _to_resume(engine)
    if path is None:
        return 0.0
    try:
        return float(sum(epoch["seconds"] for epoch in json.loads(_read(path)[0]["history"])))
    except (ValueError, KeyError, TypeError):  # reading the checkpoint itself will tell
        return 0.0


def stored_settings(engine: Engine) -> Mapping[str, Any]:
    """Returns the settings that a checkpoint to resume from was made with; nothing where there is none to be read."""
    path = _to_resume(engine)
    if path is None:
        return {}
    try:
        settings = json.loads(_read(path)[0]["identity"])["settings"]
    except (ValueError, KeyError, TypeError):  # reading the checkpoint itself will tell
        return {}
    return settings if isinstance(settings, dict) else {}


def _read(path: Path) -> tuple[Mapping[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()  # no dictionary: `file` itself cannot be iterated
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"the checkpoint {path} is damaged or cannot be read; start again with --overwrite"
        ) from error
