"""The data of a finished run, loaded again from their recorded source."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelsieve.core.errors import DataError, LabelsieveError, RunError, shown
from labelsieve.core.files import expand_home
from labelsieve.core.progress import Progress
from labelsieve.records import OriginRecord, check_kinds, is_tag_record, kinds_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelsieve.data.features import LabelledFeatures
    from labelsieve.data.images import LabelledImages
    from labelsieve.data.tags.records import TaggedImages
    from labelsieve.review.state import Reviews
    from labelsieve.tags.verdicts import TagVerdicts
    from labelsieve.verdicts import Verdicts


def is_tag_run(folder: Path) -> bool:
    """Returns whether a folder holds a run of `labelsieve scan-tags`; other errors are raised when it is read."""
    from labelsieve.core.files import read_json
    from labelsieve.verdicts import RECORD

    try:
        return is_tag_record(read_json(folder / RECORD))
    except RunError:
        return False


def source_of(verdicts: Verdicts | TagVerdicts, source: str | None) -> str | None:
    """Returns the requested source, or the recorded one of a run; a `DataError` if the requested one is empty."""
    _refuse_empty(source)
    return verdicts.run.origin.source if source is None else source


def _refuse_empty(source: str | None) -> None:
    if source == "":  # such as an unset shell variable
        raise DataError("expected a folder, a file or a Hub data set as --source, got an empty text; leave it out")


def images_of(verdicts: Verdicts, *, progress: Progress, source: str | None = None) -> LabelledImages:
    """Loads the images of a run again.

    Args:
        verdicts: The verdicts of the run.
        progress: Receives progress.
        source: Where the images lie now; None: their recorded source.

    Raises:
        RunError: The run had its images in memory or had none, or they have changed.
        DataError: The images cannot be loaded.
    """
    from labelsieve.data.features import LabelledFeatures

    data = data_of(verdicts, source=source, progress=progress)
    if isinstance(data, LabelledFeatures):
        raise RunError("this run scanned features, which have no images; scan the images for that")
    return data


def data_of(verdicts: Verdicts, *, progress: Progress, source: str | None = None) -> LabelledImages | LabelledFeatures:
    """Loads the images or features of a run again.

    Args:
        verdicts: The verdicts of the run.
        progress: Receives progress.
        source: Where the data lie now; None: their recorded source.

    Raises:
        RunError: The run had its data in memory, or they have changed.
        DataError: The data cannot be loaded.
    """
    origin = origin_of(verdicts, source=source)
    data = load_origin(origin, progress=progress)
    _check_unchanged(data.fingerprint, verdicts, origin, what="images or labels")
    return data


def tagged_images_of(verdicts: TagVerdicts, *, progress: Progress, source: str | None = None) -> TaggedImages:
    """Loads the images of a run on tags again.

    Args:
        verdicts: The verdicts of the run.
        progress: Receives progress.
        source: Where the images lie now; None: their recorded source.

    Raises:
        RunError: The run had its images in memory, or they have changed.
        DataError: They cannot be loaded.
    """
    from labelsieve.data.tags.loading import load_tags

    origin = origin_of(verdicts, source=source)
    with _source_hint():
        images: TaggedImages = _call(partial(load_tags, progress=progress), origin)
    _check_unchanged(images.fingerprint, verdicts, origin, what="images or tags")
    return images


def _check_unchanged(
    fingerprint: str, verdicts: Verdicts | TagVerdicts, origin: Mapping[str, Any], *, what: str
) -> None:
    if fingerprint != verdicts.run.data.fingerprint:
        raise RunError(
            f"the {what} of {origin['source']} changed since the run; scan again, or say with --source where "
            "the old ones are"
        )


def origin_of(verdicts: Verdicts | TagVerdicts, *, source: str | None = None) -> dict[str, Any]:
    """Returns the arguments to load the data of a run, from their recorded source or from `source`.

    Raises:
        RunError: The run had its data in memory.
        DataError: `source` is empty.
    """
    _refuse_empty(source)
    origin: dict[str, Any] = dict(verdicts.record.get("origin") or {})
    if source is not None:
        origin = moved_origin(origin, source)
    if not origin.get("source"):
        raise RunError("the images of this run were in memory; say with --source where they lie")
    return origin


def load_origin(origin: Mapping[str, Any], *, progress: Progress) -> LabelledImages | LabelledFeatures:
    """Loads images or features with the arguments of :func:`origin_of`, without comparing them with the run.

    Raises:
        RunError: The record has unknown arguments.
        DataError: The data cannot be loaded.
    """
    with _source_hint():
        return _load(origin, progress)


@contextmanager
def _source_hint() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"{error} (--source says where the images of a run lie now)") from error


def _load(origin: Mapping[str, Any], progress: Progress) -> LabelledImages | LabelledFeatures:
    from labelsieve.data.features import load_features
    from labelsieve.data.loading import load_images
    from labelsieve.data.sources.feature_files import holds_features

    load: Any = load_features if holds_features(origin["source"]) else partial(load_images, progress=progress)
    data: LabelledImages | LabelledFeatures = _call(load, origin)
    return data


def _call(load: Callable[..., Any], origin: Mapping[str, Any]) -> Any:
    """Calls a function that loads data, if it has all of the recorded arguments."""
    unknown = sorted(set(origin) - set(inspect.signature(load).parameters) | {"progress"} & set(origin))
    if unknown:
        raise RunError(f'expected no "{shown(unknown[0])}" in "origin" of the run; make the run again')
    return load(**origin)


def moved_origin(origin: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Returns the arguments to load moved data: a folder of images beside or below a table has moved with it."""
    folder, old = origin.get("image_folder"), Path(str(origin.get("source", ""))).parent
    moved = {**origin, "source": source}
    if folder is not None and Path(folder).is_relative_to(old):
        new = expand_home(source).parent / Path(folder).relative_to(old)
        moved["image_folder"] = str(new) if new.is_dir() else folder
    return moved


def compared_with(verdicts: Verdicts, *, progress: Progress) -> LabelledImages | None:
    """Loads the images again that a run found leaks to; None, with a note, if they are missing or not recorded.

    Without leaks they are not loaded.
    """
    from labelsieve.curation.findings import EXACT_LEAK, NEAR_LEAK
    from labelsieve.data.images import LabelledImages

    findings, against = verdicts.image_findings, verdicts.run.against
    if findings is None or against is None or not {EXACT_LEAK, NEAR_LEAK} & {*findings["kind"].to_pylist()}:
        return None
    try:
        images = load_part(against.origin, what="the images to compare with", progress=progress)
        if not isinstance(images, LabelledImages) or images.fingerprint != against.fingerprint:
            raise RunError(f"{shown(against.source)} changed since the run")
    except LabelsieveError as error:
        progress.say(f"note: leaks are shown without the image of the other split, as {error}")
        return None
    return images


def load_part(origin: Mapping[str, Any] | None, *, what: str, progress: Progress) -> LabelledImages | LabelledFeatures:
    """Loads test images or the images of another split.

    Args:
        origin: The arguments to load them, in the record of a run; None if it has none.
        what: Their name in a message, in the plural.
        progress: Receives progress.

    Raises:
        RunError: The source is missing in the record, or a value is of a wrong type.
        DataError: They cannot be loaded.
    """
    from labelsieve.verdicts import RECORD

    if not origin or not origin.get("source"):
        raise RunError(f"the run does not say where {what} lie")
    check_kinds({"origin": dict(origin)}, kinds_of(OriginRecord, "origin."), Path(RECORD))
    return _load(origin, progress)


def load_reviews(
    run_folder: Path, verdicts: Verdicts, *, progress: Progress, source: str | None
) -> tuple[Reviews, NDArray[np.uint64] | None]:
    """Returns the reviews of a run, and the hashes of its images to match them; None without reviews or images.

    Args:
        run_folder: Folder of the run.
        verdicts: The verdicts of the run.
        progress: Receives progress and the note.
        source: Where the data lie now; None: their recorded source.

    Raises:
        LabelsieveError: The answers cannot be read, or the data are not in `source`, if it is passed.
    """
    from labelsieve import review

    reviews = review.load(run_folder, progress=progress)
    data = data_or_none(verdicts, source=source, progress=progress) if len(reviews) else None
    return reviews, None if data is None else data.contents


def data_or_none(
    verdicts: Verdicts, *, progress: Progress, source: str | None
) -> LabelledImages | LabelledFeatures | None:
    """Returns the data of a run; None, with a note, where they cannot be loaded any more.

    Args:
        verdicts: The verdicts of the run.
        progress: Receives progress and the note.
        source: Where the data must lie now; None: their recorded source, where they may be missing.

    Raises:
        LabelsieveError: They are not in `source`, if it is passed.
    """
    try:
        return data_of(verdicts, source=source, progress=progress)
    except LabelsieveError as error:
        if source is not None:
            raise
        progress.say(f"note: answers are matched by the ids of the images, without their copies: {error}")
        return None
