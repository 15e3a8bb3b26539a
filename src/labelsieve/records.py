"""The typed record of a run; people edit JSON files, so the type of each value is checked.

Keys that :class:`RunRecord` does not name are kept in the file and never read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from labelsieve.core.errors import RunError, shown
from labelsieve.core.provenance import to_json
from labelsieve.flagging import FlagRule
from labelsieve.metrics import Interval

_T = TypeVar("_T")

# No count or duration exceeds it, and many formats cannot hold more. NaN fails the comparison.
_MAX = 1e15


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_MAX <= value <= _MAX


def _is_size(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_fraction(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_size(value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


# Name of each kind in messages, and the check of a value.
_KINDS: dict[str, Callable[[Any], bool]] = {
    "a text": _is_text,
    "a list of texts": _is_texts,
    "a text or a list of texts": lambda value: _is_text(value) or _is_texts(value),
    "a number": _is_number,
    "a number from 0 to 1": _is_fraction,
    "a number from 0": _is_size,
    "an integer from 0": _is_count,
    "true or false": lambda value: isinstance(value, bool),
    "an object": lambda value: isinstance(value, dict),
    "a list of objects": lambda value: isinstance(value, list) and all(isinstance(each, dict) for each in value),
}
# The kind of each type of field; other kinds are annotations of the type.
_KIND_OF = {str: "a text", bool: "true or false", float: "a number", int: "an integer from 0"}
_Fraction = Annotated[float, "a number from 0 to 1"]
_Size = Annotated[float, "a number from 0"]
_Texts = Annotated[tuple[str, ...], "a list of texts"]
_TextOrTexts = Annotated[str | tuple[str, ...], "a text or a list of texts"]
_Object = Annotated[Mapping[str, Any], "an object"]


@dataclass(frozen=True, kw_only=True)
class OriginRecord:
    """How the data of a scan were loaded: arguments of :func:`labelsieve.load_images` and the like."""

    source: str | None = None
    image_column: str | None = None
    image_folder: str | None = None
    label_column: _TextOrTexts | None = None
    tag_column: _Texts | None = None
    separator: str | None = None
    truth_column: str | None = None
    class_names: _TextOrTexts | None = None
    split: str | None = None
    noise: str | None = None
    text: str | None = None
    logit_scale: float | None = None
    limit: int | None = None
    seed: int | None = None
    one_class: bool | None = None


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """The data of a scan."""

    fingerprint: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """The vision-language model of a scan; without a name where features were scanned."""

    name: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, kw_only=True)
class DetectorRecord:
    """The detector of a scan."""

    name: str | None = None
    recipe: str | None = None
    settings: _Object | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, kw_only=True)
class EstimateRecord:
    """Estimates from the detector's own probabilities: wrong labels, share of right flags and missed labels."""

    wrong_labels: Interval | None = None
    right_flags: Interval | None = None
    missed_labels: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class ConfusedRecord:
    """The pair of classes that an annotator confused most often."""

    consensus: str | None = None
    label: str | None = None
    times: int | None = None


@dataclass(frozen=True, kw_only=True)
class AnnotatorRecord:
    """One of several annotators: number of labels, accuracy with its interval of 95 %, agreement with the others."""

    name: str | None = None
    labels: int | None = None
    accuracy: _Fraction | None = None
    low: _Fraction | None = None
    high: _Fraction | None = None
    agreement: _Fraction | None = None
    confused: ConfusedRecord | None = None


@dataclass(frozen=True, kw_only=True)
class ConsensusRecord:
    """Changes of the consensus of several annotators against their majority vote; accuracies if there is a truth."""

    changed: int | None = None
    accuracy: _Fraction | None = None
    accuracy_of_vote: _Fraction | None = None


@dataclass(frozen=True, kw_only=True)
class TestRecord:
    """How well the model of a scan classifies test images; `origin`: arguments to load them again."""

    accuracy: _Fraction
    images: int
    unreadable: int
    origin: _Object | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReviewedRecord:
    """The review of an earlier run that a scan used."""

    run: str | None = None
    images: int | None = None
    wrong: int | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, kw_only=True)
class AgainstRecord:
    """The other split that was searched for copies; `origin`: arguments to load it again."""

    source: str | None = None
    source_name: str | None = None
    origin: _Object | None = None
    images: int | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, kw_only=True)
class FindingRecord:
    """A finding of a scan about the whole data set; `level` is `problem`, `warning` or `info`."""

    level: str | None = None
    code: str | None = None
    figure: str | None = None
    message: str | None = None
    advice: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The contents of `run.json` of a scan; None where an entry is missing.

    Attributes:
        labelsieve: Version that scanned.
        created: Date and time in ISO 8601.
        source: Path of the images, or a text for images in memory.
        origin: How they were loaded.
        data: Their fingerprint.
        model: The vision-language model.
        detector: The detector and its settings.
        rule: The rule that flags labels. Its entries are at the top level, not in an object of their own.
        zero_shot_agreement: Share of given labels that the zero-shot model predicts.
        zero_shot_balanced_agreement: The same, averaged over classes.
        estimate: Estimated number of wrong labels, by the detector's own probabilities.
        annotators: Several annotators, one entry each.
        consensus: Changes of their consensus.
        test: Accuracy on test images.
        reviewed: The earlier review that was used.
        against: The other split that was searched for copies.
        image_defects: Whether images were searched for defects.
        findings: Findings about the whole data set.
        seed: Seed of all random numbers.
        precision: Number format of the features.
        hardware: Device and architecture.
        seconds: Duration of the scan.
        out: Folder of the run.

    Example:
        >>> record = RunRecord.of({"detector": {"name": "joint"}, "threshold": 0.5})
        >>> record.detector.name, record.rule.threshold, record.model.name
        ('joint', 0.5, None)
    """

    labelsieve: str | None = None
    created: str | None = None
    source: str | None = None
    origin: OriginRecord = OriginRecord()
    data: DataRecord = DataRecord()
    model: ModelRecord = ModelRecord()
    detector: DetectorRecord = DetectorRecord()
    rule: FlagRule = field(default_factory=lambda: FlagRule.of({}))
    zero_shot_agreement: _Fraction | None = None
    zero_shot_balanced_agreement: _Fraction | None = None
    estimate: EstimateRecord = EstimateRecord()
    annotators: tuple[AnnotatorRecord, ...] = ()
    consensus: ConsensusRecord | None = None
    test: TestRecord | None = None
    reviewed: ReviewedRecord | None = None
    against: AgainstRecord | None = None
    image_defects: bool | None = None
    findings: tuple[FindingRecord, ...] = ()
    seed: int | None = None
    precision: str | None = None
    hardware: str | None = None
    seconds: _Size | None = None
    out: str | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """Reads the contents of `run.json`; :func:`check_kinds` has checked them if they come from a file."""
        return _read(cls, record)


def kinds_of(record: Any, above: str = "") -> dict[str, str]:
    """Returns the kind of each key: `a.b` is `b` in the object `a`, or in each object of the list `a`."""
    kinds: dict[str, str] = {}
    for name, hint in get_type_hints(record, include_extras=True).items():
        hint = _without_none(hint)
        inner = _inner(hint)
        if hint is FlagRule:
            kinds |= kinds_of(FlagRule, above)
            continue
        if inner is None:
            kinds[above + name] = hint.__metadata__[0] if get_origin(hint) is Annotated else _KIND_OF[hint]
            continue
        kinds[above + name] = "an object" if inner is hint else "a list of objects"
        if is_dataclass(inner):
            kinds |= kinds_of(inner, f"{above}{name}.")
    return kinds


def _read(record: type[_T], values: Mapping[str, Any]) -> _T:
    fields: dict[str, Any] = {}
    for name, hint in get_type_hints(record).items():
        value, hint = values.get(name), _without_none(hint)
        inner = _inner(hint)
        if hint is FlagRule:
            fields[name] = FlagRule.of(values)
            continue
        if value is None or value == {}:  # the same as missing
            continue
        if inner is Interval:
            fields[name] = Interval.of_record(value)
        elif inner is None:
            fields[name] = tuple(value) if isinstance(value, list) else value
        else:
            fields[name] = _read(inner, value) if inner is hint else tuple(_read(inner, each) for each in value)
    return record(**fields)


def _without_none(hint: Any) -> Any:
    """Returns the type of a field without None."""
    if get_origin(hint) not in (Union, UnionType) or type(None) not in get_args(hint):
        return hint
    return next(each for each in get_args(hint) if each is not type(None))


def _inner(hint: Any) -> Any:
    """Returns the record type of a field, or of each entry of it; None if it has none."""
    each = get_args(hint)[0] if get_origin(hint) is tuple else hint
    return each if each is Interval or is_dataclass(each) else None


# Further keys of the file.
_FILE = {"class_names": "a list of texts", "verdicts_fingerprint": "a text"}
RUN = _FILE | kinds_of(RunRecord)
# All others may be missing or null.
REQUIRED = ("class_names", "verdicts_fingerprint", "test.accuracy", "test.images", "test.unreadable")


# The `kind` of a run with several labels per image.
TAGS = "tags"


def is_tag_record(record: Mapping[str, Any]) -> bool:
    """Returns whether a record is that of a run with several labels per image; other records have no kind."""
    return record.get("kind") == TAGS


def check_kinds(record: Mapping[str, Any], kinds: Mapping[str, str], path: Path) -> None:
    """Checks that the values of a JSON file have the kinds that its readers expect.

    Args:
        record: Its contents.
        kinds: The kind of each key.
        path: The file, for the message.

    Raises:
        RunError: A value is of another kind; the message names the first.
    """
    try:
        to_json(record).encode()
    except (UnicodeEncodeError, RecursionError):
        raise RunError(f"expected texts in UTF-8 in {path}, found others; make the run again") from None
    for key, kind in kinds.items():
        for value in _values(record, key):
            if (value is None and key not in REQUIRED) or _KINDS[kind](value):
                continue
            actual = "none" if value is None else shown(to_json(value))
            raise RunError(f'expected "{key}" in {path} to be {kind}, found {actual}; make the run again')


def _values(record: Mapping[str, Any], key: str) -> Iterator[Any]:
    """Yields the values of a key, None where it is missing; nothing where its parent is missing."""
    name, _, below = key.partition(".")
    value = record.get(name)
    if not below:
        yield value
        return
    for entry in value if isinstance(value, list) else [value] if value else []:
        yield from _values(entry, below)
