"""The folder that an export writes: its images under unique names, its marker, and when it may be replaced.

Ids and class names are user data. They become names inside of the output folder and can never lead out of it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from PIL import Image

from labelsieve.core.errors import DataError, RunError
from labelsieve.core.files import read_json, write_json
from labelsieve.core.output_folders import (
    UniqueNames,
    check_free,
    check_no_mount,
    new_folder,
    paths_fingerprint,
    safe_name,
)
from labelsieve.core.progress import Progress
from labelsieve.data.images import LabelledImages
from labelsieve.report.exports.registry import ExportRequest
from labelsieve.review.writers.file_transfer import copy_file, link_file
from labelsieve.verdicts import Verdicts, require_same_images

# In every exported folder: its provenance, and the proof that it may be replaced. Loaders skip hidden files.
MARKER = ".labelsieve-export.json"
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "TIFF": ".tif", "BMP": ".bmp"}


@contextmanager
def export_folder(request: ExportRequest) -> Iterator[Path]:
    """Yields a temporary folder, which is renamed to the output folder when the block ends without an error.

    Raises:
        RunError: `out` exists, or the images are not those of the verdicts.
    """
    require_same_images(request.verdicts.table, request.images)
    _check_replaceable(request.out, overwrite=request.overwrite)
    with new_folder(request.out) as part:
        yield part


def write_images(
    request: ExportRequest, part: Path, folders: Mapping[int, str], *, by_stem: bool = False
) -> dict[int, str]:
    """Writes images into folders of an export, under unique names.

    Args:
        request: The export.
        part: The folder that is written.
        folders: Row to its folder.
        by_stem: Whether names must differ in more than their suffix.

    Returns:
        Row to the path in the folder.

    Raises:
        DataError: An image file is missing.
    """
    images = request.images
    names, paths = UniqueNames(), {}
    progress = request.progress or Progress()
    with progress.task("writing images", total=len(folders), unit="images", brief=True) as advance:
        for row, folder in folders.items():
            source = _source(images, row, request.out)
            (part / folder).mkdir(exist_ok=True)
            stem, suffix = os.path.splitext(file_name(images.ids[row], source))
            name = names.take(folder, stem) + suffix if by_stem else names.take(folder, stem + suffix)
            paths[row] = f"{folder}/{name}"
            _write_image(source, part / paths[row], copy=request.copy)
            advance(1)
    return paths


def write_marker(verdicts: Verdicts, folder: Path, *, count: int, class_of_folder: Mapping[str, str]) -> None:
    """Writes the provenance of an export, which also marks the folder as replaceable.

    Args:
        verdicts: Of all images, exported or not.
        folder: The export, with all other files in it: their paths are part of the marker.
        count: The number of exported images.
        class_of_folder: Folder to class name; empty if the folders are not those of classes.
    """
    content = {
        "made_by": "labelsieve export",
        "version": verdicts.run.labelsieve,
        "source": verdicts.run.source,
        "images": count,
        "left_out": len(verdicts) - count,
        "class_of_folder": class_of_folder,
        "files": paths_fingerprint(folder),
    }
    write_json(folder / MARKER, content)


def _check_replaceable(out: Path, *, overwrite: bool) -> None:
    check_free(out, overwrite=overwrite)
    if not os.path.lexists(out):
        return
    if not out.is_dir() or out.is_symlink():
        raise RunError(f"expected a folder to replace, {out} is none; choose another name")
    if any(out.iterdir()) and not _is_export(out):
        # Overwriting the source of the data by mistake would destroy the originals.
        raise RunError(
            f"{out} was not made by an export or has changed since, so it is not replaced; choose another name"
        )
    check_no_mount(out)


def _is_export(folder: Path) -> bool:
    """Returns whether a folder contains exactly the files that an export wrote."""
    try:
        return read_json(folder / MARKER).get("files") == paths_fingerprint(folder)
    except RunError:
        return False


def _source(images: LabelledImages, row: int, out: Path) -> bytes | Path:
    """Returns the encoded image: its bytes if the data contain them, or are a crop; otherwise its file."""
    if images.boxes is not None:
        return images.cut_out(row)
    data, name = images.cell(row)
    if data is not None:
        return data
    path = Path(name or "").absolute()
    if not path.is_file():
        raise DataError(f"{images.ids[row]}: the image file does not exist any more; scan the data again")
    if os.path.realpath(path).startswith(os.path.realpath(out) + os.sep):
        raise RunError(f"{out} holds images of the data itself, so it is not replaced; choose another name")
    return path


def _write_image(source: bytes | Path, target: Path, *, copy: bool) -> None:
    if isinstance(source, bytes):
        target.write_bytes(source)
    else:
        (copy_file if copy else link_file)(source, target)


def file_name(image_id: str, source: bytes | Path) -> str:
    """Returns the base name of an id with the suffix of the image's encoding."""
    base = PurePosixPath(image_id.replace("\\", "/")).name
    stem, suffix = os.path.splitext(base)
    suffixes = Image.registered_extensions()
    named = source.suffix if isinstance(source, Path) else ""
    fitting = named if named.lower() in suffixes else _suffix_of(source)
    if suffix.lower() not in suffixes:
        return safe_name(base) + fitting  # what looks like a suffix is part of the name, as in "v1.5"
    is_same = suffixes.get(suffix.lower()) == suffixes.get(fitting.lower())
    return safe_name(stem) + (suffix if is_same else fitting)


def _suffix_of(source: bytes | Path) -> str:
    """Detects the format of an image from its first bytes."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            kind = str(image.format)
    except (OSError, Image.DecompressionBombError):  # it was readable when it was scanned
        raise DataError("an image of the data has changed since the scan; scan it again") from None
    kind = "JPEG" if kind == "MPO" else kind  # photos of some phones: a JPEG followed by more images
    candidates = (suffix for suffix, format_ in Image.registered_extensions().items() if format_ == kind)
    return _SUFFIXES.get(kind) or next(candidates, "")
