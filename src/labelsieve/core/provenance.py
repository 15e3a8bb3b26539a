"""Provenance of results: fingerprints of data and settings, and versions of packages."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np

_PACKAGES = (
    *("labelsieve", "torch", "torchvision", "transformers", "timm", "peft", "accelerate"),
    *("datasets", "pillow", "numpy", "scipy", "scikit-learn", "cleanlab"),
)


def fingerprint(*parts: Any) -> str:
    """Hashes arrays, bytes, strings and JSON-like values into 16 hexadecimal digits.

    Equal parts give equal fingerprints on every machine; the order of dictionary keys does not matter. BLAKE2b hashes
    each part as a line with its kind and its length in bytes, followed by its content.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, np.ndarray):
            head, body = f"array {part.dtype.str} {part.shape}", np.ascontiguousarray(part).tobytes()
        elif isinstance(part, bytes):
            head, body = "bytes", part
        else:
            head, body = "json", to_json(part).encode()
        digest.update(f"{head} {len(body)}\n".encode())
        digest.update(body)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that a result depends on."""
    versions_by_name = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions_by_name[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions_by_name


def to_json(value: Any) -> str:
    """Serialises values to JSON, including dataclasses, paths and numpy scalars; equal values give equal text."""
    return json.dumps(value, default=_to_jsonable, sort_keys=True, indent=2, ensure_ascii=False)


def _to_jsonable(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=to_json)  # works for mixed types and does not depend on the hash seed
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
