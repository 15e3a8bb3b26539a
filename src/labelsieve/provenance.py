"""Where a result came from, and how it reaches the disk whole or not at all.

Fingerprints of data and settings, versions of what was used, and atomic writing. Nothing here pickles.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from labelsieve.errors import RunError

_PACKAGES = ("labelsieve", "torch", "torchvision", "transformers", "datasets", "accelerate", "scikit-learn", "numpy")


def fingerprint(*parts: Any) -> str:
    """Hashes arrays, bytes, strings and JSON-like values into 16 hexadecimal digits.

    Equal parts give equal fingerprints on every machine; the order of dictionary keys does not matter. Each part enters
    BLAKE2b as a line with its kind and its length in bytes, then its content.
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
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def to_json(value: Any) -> str:
    """Serialises dataclasses, paths and numpy scalars too; the same value always gives the same text."""
    return json.dumps(value, default=_plain, sort_keys=True, indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=to_json)  # the text orders mixed types too, and does not depend on the hash seed
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def is_utf8(path: str | Path) -> bool:
    """Tells whether a path is a text, which Arrow and the records of runs need; on Linux it may be any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` when the block ends well, removes it otherwise.

    Raises:
        RunError: The disk is full or read-only, or the path is not UTF-8; whatever stood there before is untouched.
    """
    if not is_utf8(path):
        raise RunError(f"could not write {str(path)!r}: the path is not UTF-8; choose another name")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        # the number's own text: some libraries tell of the temporary file instead
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise RunError(f"could not write {path}: {reason}; free some space or choose a writable folder") from error
    finally:
        with suppress(OSError):  # a read-only disk: there is nothing to remove
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON, atomically."""
    write_text(path, to_json(value) + "\n")


def read_json(path: Path) -> Mapping[str, Any]:
    """Reads a JSON object.

    Raises:
        RunError: The file is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"expected a file {path}, found none; was the run finished?") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as JSON ({error}); the run has to be made again") from error
    if not isinstance(value, dict):
        raise RunError(f"expected a JSON object in {path}, found {type(value).__name__}; the run has to be made again")
    return value
