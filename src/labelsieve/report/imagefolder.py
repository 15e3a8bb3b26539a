"""A cleaned copy of a data set: one folder for each class, with the images that can be read and whose label is right.

Ids and class names are user data. They become names inside the output folder and can never point out of it.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelsieve.core.errors import DataError, RunError
from labelsieve.core.output_folders import UniqueNames, check_no_mount, new_folder, paths_fingerprint, safe_name
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import read_json, write_json
from labelsieve.data.images import LabelledImages
from labelsieve.report.common import require_same_images
from labelsieve.report.request import ExportRequest
from labelsieve.review.rows import (
    FLAGGED_ARE_DROPPED,
    after_reviews,
    clean_part,
    corrected,
    dropped_by_reviewers,
    kept_although_flagged,
)
from labelsieve.verdicts import Verdicts

# In every exported folder: what it was made from, and the proof that it may be replaced. Loaders skip hidden files.
MARKER = ".labelsieve-export.json"
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "TIFF": ".tif", "BMP": ".bmp"}


def write_image_folder(request: ExportRequest) -> None:
    """Writes the clean part as class folders; classes without any image are left out.

    It holds the images that can be read and are not flagged, or flagged with a label quality above `drop_at`; and
    those whose right label a reviewer named, in the folder of that.

    Raises:
        RunError: `out` is in the way or cannot be written, or the images are not those of the verdicts.
        DataError: An image file is gone.
    """
    verdicts, reviews = request.verdicts, request.reviews
    labels = corrected(verdicts, reviews or {})
    kept = _clean_part(request) | (labels != verdicts.given)
    kept &= verdicts.is_readable & ~dropped_by_reviewers(verdicts, reviews)
    rows = np.flatnonzero(kept).tolist()
    taken = UniqueNames()
    folders = [taken.take("", safe_name(name)) for name in verdicts.class_names]
    with export_folder(request) as part:
        place_images(request, part, {row: folders[labels[row]] for row in rows})
        write_marker(
            verdicts, part, kept=len(rows), class_of_folder=dict(zip(folders, verdicts.class_names, strict=True))
        )


def _clean_part(request: ExportRequest) -> NDArray[np.bool_]:
    verdicts, drop_at = after_reviews(request.verdicts, request.reviews), request.drop_at
    clean = clean_part(verdicts, drop_at=drop_at)
    if request.progress is not None and drop_at != FLAGGED_ARE_DROPPED:
        kept = int(kept_although_flagged(verdicts, drop_at=drop_at).sum())
        request.progress.say(f"note: {kept:,} flagged images kept: p_clean above {drop_at:g}")
    return clean


@contextmanager
def export_folder(request: ExportRequest) -> Iterator[Path]:
    """Yields a temporary folder, which becomes that of the request when the block ends well.

    Raises:
        RunError: `out` is in the way, or the images are not those of the verdicts.
    """
    require_same_images(request.verdicts, request.images)
    _check_free(request.out, overwrite=request.overwrite)
    with new_folder(request.out) as part:
        yield part


def place_images(
    request: ExportRequest, part: Path, folders: Mapping[int, str], *, by_stem: bool = False
) -> dict[int, str]:
    """Writes images into folders of an export, under names of their own.

    Args:
        request: What is exported.
        part: The folder that is written.
        folders: Row to the folder in it.
        by_stem: Names differ in more than their suffix.

    Returns:
        Row to the path in the folder.

    Raises:
        DataError: An image file is gone.
    """
    images = request.images
    names, paths = UniqueNames(), {}
    shown = request.progress or Progress()
    with shown.task("writing images", total=len(folders), unit="images", brief=True) as advance:
        for row, folder in folders.items():
            source = _source(images, row, request.out)
            (part / folder).mkdir(exist_ok=True)
            stem, suffix = os.path.splitext(file_name(images.ids[row], source))
            name = names.take(folder, stem) + suffix if by_stem else names.take(folder, stem + suffix)
            paths[row] = f"{folder}/{name}"
            _place(source, part / paths[row], copy=request.copy)
            advance(1)
    return paths


def write_marker(verdicts: Verdicts, folder: Path, *, kept: int, class_of_folder: Mapping[str, str]) -> None:
    """Writes what an export was made from, by which it is known when it is to be replaced."""
    content = {
        "made_by": "labelsieve export",
        "version": verdicts.run.labelsieve,
        "source": verdicts.run.source,
        "images": kept,
        "left_out": len(verdicts) - kept,
        "class_of_folder": class_of_folder,
        "files": paths_fingerprint(folder),
    }
    write_json(folder / MARKER, content)


def _check_free(out: Path, *, overwrite: bool) -> None:
    if not (out.exists() or out.is_symlink()):
        return
    if not overwrite:
        raise RunError(f"{out} is there already; choose another name or pass --overwrite (overwrite=True)")
    if not out.is_dir() or out.is_symlink():
        raise RunError(f"expected a folder to replace, {out} is none; choose another name")
    if any(out.iterdir()) and not _is_export(out):
        # Overwriting the source of the data by mistake would destroy the originals.
        raise RunError(
            f"{out} was not made by an export or has changed since, so it is not replaced; choose another name"
        )
    check_no_mount(out)


def _is_export(folder: Path) -> bool:
    """Returns whether a folder holds what an export wrote, and nothing that somebody put there since."""
    try:
        return read_json(folder / MARKER).get("files") == paths_fingerprint(folder)
    except RunError:
        return False


def _source(images: LabelledImages, row: int, out: Path) -> bytes | Path:
    """Returns the encoded image: its bytes where the data hold them, or are a part of it; otherwise its file."""
    if images.boxes is not None:
        return images.cut_out(row)
    cell = images.dataset[row]["image"]
    if cell["bytes"] is not None:
        return bytes(cell["bytes"])
    path = Path(cell["path"]).absolute()
    if not path.is_file():
        raise DataError(f"{images.ids[row]}: the image file is gone; scan the data again")
    if os.path.realpath(path).startswith(os.path.realpath(out) + os.sep):
        raise RunError(f"{out} holds images of the data itself, so it is not replaced; choose another name")
    return path


def _place(source: bytes | Path, target: Path, *, copy: bool) -> None:
    if isinstance(source, bytes):
        target.write_bytes(source)
    elif copy:
        shutil.copyfile(source, target)
    else:
        _link(source, target)


def _link(source: Path, target: Path) -> None:
    """Links, or copies where the system allows no links (Windows without the right, some network drives)."""
    for link in (os.symlink, os.link):
        try:
            link(source, target)
            return
        except OSError:
            continue
    shutil.copyfile(source, target)


def file_name(image_id: str, source: bytes | Path) -> str:
    """Returns the base name of an id with the suffix of the image's encoding."""
    base = PurePosixPath(image_id.replace("\\", "/")).name
    stem, suffix = os.path.splitext(base)
    known = Image.registered_extensions()
    named = source.suffix if isinstance(source, Path) else ""
    right = named if named.lower() in known else _suffix_of(source)
    if suffix.lower() not in known:
        return safe_name(base) + right  # what looks like a suffix is part of the name, as in "v1.5"
    same = known.get(suffix.lower()) == known.get(right.lower())
    return safe_name(stem) + (suffix if same else right)


def _suffix_of(source: bytes | Path) -> str:
    """Reads the kind of an image from its first bytes."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            kind = str(image.format)
    except (OSError, Image.DecompressionBombError):  # it was readable when it was scanned
        raise DataError("an image of the data has changed since the scan; scan it again") from None
    kind = "JPEG" if kind == "MPO" else kind  # photos of some phones: a JPEG with more images behind it
    others = (suffix for suffix, format_ in Image.registered_extensions().items() if format_ == kind)
    return _SUFFIXES.get(kind) or next(others, "")
