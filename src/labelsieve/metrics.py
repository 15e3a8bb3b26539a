"""How good verdicts, classifiers and probabilities are against the truth: each number has its one home here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Metric(NamedTuple):
    """What a metric is called: in the head of a table, and where there is room."""

    title: str
    name: str


METRICS = {
    "clean_precision": Metric("clean P", "precision of the labels that are kept"),
    "clean_recall": Metric("clean R", "recall of the labels that are kept"),
    "clean_f1": Metric("clean F1", "F1 of the labels that are kept"),
    "issue_precision": Metric("issue P", "precision of the flagged labels"),
    "issue_recall": Metric("issue R", "recall of the flagged labels"),
    "issue_f1": Metric("issue F1", "F1 of the flagged labels"),
    "auroc": Metric("AUROC", "AUROC"),
    "average_precision": Metric("AP", "average precision of wrong labels"),
}
"""What :func:`evaluate` measures, between 0 and 1, higher = better. A new metric is a line here, and its value there.

Terminal, report, comparison and tables derive from it.
"""
TAG_METRICS = {
    "wrong_precision": Metric("wrong P", "precision of the given tags that are flagged"),
    "wrong_recall": Metric("wrong R", "recall of the wrong tags"),
    "wrong_f1": Metric("wrong F1", "F1 of the given tags that are flagged"),
    "wrong_auroc": Metric("wrong AUROC", "AUROC of the wrong tags among those given"),
    "wrong_average_precision": Metric("wrong AP", "average precision of the wrong tags among those given"),
    "missing_precision": Metric("missing P", "precision of the absent tags that are flagged"),
    "missing_recall": Metric("missing R", "recall of the missing tags"),
    "missing_f1": Metric("missing F1", "F1 of the absent tags that are flagged"),
    "missing_auroc": Metric("missing AUROC", "AUROC of the missing tags among those absent"),
    "missing_average_precision": Metric("missing AP", "average precision of the missing tags among those absent"),
    "map": Metric("mAP", "mean over the classes of the average precision of wrong and missing tags"),
}
"""What :func:`evaluate_pairs` measures where an image has several labels, between 0 and 1, higher = better."""
METRIC_TITLES = {name: metric.title for name, metric in METRICS.items()}
SIDES = ("clean", "issue")
"""Terminal and report have a table of both sides of precision, recall and F1, and lines for all other metrics."""
OTHER_METRICS = {name: metric.name for name, metric in METRICS.items() if not name.startswith(SIDES)}
# Bins of the calibration error, and where every other label is right.
_BINS, _EVEN = 10, 0.5


class Interval(NamedTuple):
    """An estimate and the ends of its interval: of 95 %, where nothing else is said."""

    value: float
    low: float
    high: float

    @classmethod
    def of_record(cls, found: Any) -> Interval | None:
        """Reads it from the `estimate` of `run.json`; None where there is none of three numbers.

        Example:
            >>> Interval.of_record({"value": 6, "low": 3, "high": 9})
            Interval(value=6.0, low=3.0, high=9.0)
        """
        values = [found.get(name) for name in cls._fields] if isinstance(found, Mapping) else []
        known = [float(each) for each in values if isinstance(each, int | float) and math.isfinite(each)]
        return cls(*known) if len(known) == len(cls._fields) else None


def evaluate(
    *, wrong: NDArray[np.bool_], flagged: NDArray[np.bool_], quality: NDArray[np.float32]
) -> dict[str, float | int | None]:
    """Scores verdicts against the truth, with the side that each number speaks of in its name.

    The paper counts clean labels as the positive class (`clean_*`), cleanlab counts issues (`issue_*`).

    Args:
        wrong: Shape (N,): true where the given label differs from the true one.
        flagged: Shape (N,): true where the label was called an issue.
        quality: Shape (N,), between 0 and 1, higher = more likely correct.

    Returns:
        `clean_precision`, `clean_recall`, `clean_f1`, `issue_precision`, `issue_recall`, `issue_f1`, all between 0 and
        1 (0 where nothing was found or nothing is to be found), `auroc` and `average_precision` of `1 - quality` for
        the issues (None if all labels are right or all are wrong), `noise_rate`, `flagged_rate` and `images`.

    Example:
        >>> import numpy as np
        >>> wrong, flagged = np.array([True, True, False, False]), np.array([True, False, False, False])
        >>> found = evaluate(wrong=wrong, flagged=flagged, quality=np.array([0.1, 0.6, 0.8, 0.9]))
        >>> found["issue_precision"], found["issue_recall"], found["auroc"]
        (1.0, 0.5, 1.0)
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    mixed = bool(wrong.any() and not wrong.all())
    suspicion = -quality  # ranks as 1 - quality does, but does not round the smallest qualities to ties
    return {
        **_one_side("clean", ~wrong, ~flagged),
        **_one_side("issue", wrong, flagged),
        "auroc": float(roc_auc_score(wrong, suspicion)) if mixed else None,
        "average_precision": float(average_precision_score(wrong, suspicion)) if mixed else None,
        "noise_rate": float(wrong.mean()) if wrong.size else 0.0,
        "flagged_rate": float(flagged.mean()) if wrong.size else 0.0,
        "images": int(wrong.size),
    }


def _one_side(side: str, actual: NDArray[np.bool_], found: NDArray[np.bool_]) -> dict[str, float | int | None]:
    hits, both = float((actual & found).sum()), float(actual.sum() + found.sum())
    return {
        f"{side}_precision": hits / float(found.sum()) if found.any() else 0.0,
        f"{side}_recall": hits / float(actual.sum()) if actual.any() else 0.0,
        f"{side}_f1": 2 * hits / both if both else 0.0,
    }


def evaluate_pairs(
    *,
    truth: NDArray[np.bool_],
    tags: NDArray[np.bool_],
    quality: NDArray[np.float32],
    flagged: NDArray[np.bool_],
) -> dict[str, float | int | None]:
    """Scores what was found out about the tags of images against the truth: wrong ones, and missing ones.

    Args:
        truth: Shape (N, K): which classes are in which image.
        tags: Shape (N, K): which are given.
        quality: Shape (N, K), between 0 and 1, higher = given state more likely right; rows with NaN, of images that
            could not be read, do not count.
        flagged: Shape (N, K): which states were called issues.

    Returns:
        For `wrong`, of all given tags, and for `missing`, of all absent ones: `*_precision`, `*_recall` and `*_f1` of
        the flags (0 where nothing was found or nothing is to be found), `*_auroc` and `*_average_precision` of
        `1 - quality` (None where all are right or none is), and `*_rate`, the share of issues; `map`, the mean of the
        average precision of issues of both kinds over the classes that have one (None if none has); `images`.

    Example:
        >>> import numpy as np
        >>> truth, tags = np.array([[True, False], [True, True]]), np.array([[True, True], [False, True]])
        >>> quality = np.array([[0.9, 0.2], [0.4, 0.8]], dtype=np.float32)
        >>> found = evaluate_pairs(truth=truth, tags=tags, quality=quality, flagged=quality < 0.5)
        >>> found["wrong_f1"], found["missing_f1"], found["map"]
        (1.0, 1.0, 1.0)
    """
    read = ~np.isnan(quality).any(axis=1)
    if not read.all():
        truth, tags, quality, flagged = truth[read], tags[read], quality[read], flagged[read]
    return {
        **_one_state("wrong", ~truth[tags], quality[tags], flagged[tags]),
        **_one_state("missing", truth[~tags], quality[~tags], flagged[~tags]),
        "map": _mean_average_precision(truth != tags, quality),
        "images": int(read.sum()),
    }


def _one_state(
    kind: str, issue: NDArray[np.bool_], quality: NDArray[np.float32], flagged: NDArray[np.bool_]
) -> dict[str, float | int | None]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    mixed = bool(issue.any() and not issue.all())
    return {
        **_one_side(kind, issue, flagged),
        f"{kind}_auroc": float(roc_auc_score(issue, -quality)) if mixed else None,
        f"{kind}_average_precision": float(average_precision_score(issue, -quality)) if mixed else None,
        f"{kind}_rate": float(issue.mean()) if issue.size else 0.0,
    }


def _mean_average_precision(issue: NDArray[np.bool_], quality: NDArray[np.float32]) -> float | None:
    return _mean(average_precisions(-quality, issue))


def average_precisions(scores: NDArray[Any], truth: NDArray[np.bool_]) -> list[float | None]:
    """Returns the average precision of each class (`average_precision_score` of scikit-learn).

    Args:
        scores: Shape (N, K), higher = more likely.
        truth: Shape (N, K): what is right.

    Returns:
        K numbers between 0 and 1, None where nothing is right. Their mean over the others is the mAP.

    Example:
        >>> import numpy as np
        >>> truth = np.array([[True, False], [False, False], [True, False]])
        >>> average_precisions(np.array([[0.9, 0.1], [0.5, 0.1], [0.6, 0.1]]), truth)
        [1.0, None]
    """
    from sklearn.metrics import average_precision_score

    pairs = zip(truth.T, scores.T, strict=True)
    return [float(average_precision_score(right, own)) if right.any() else None for right, own in pairs]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return float(np.mean(known)) if known else None


def measure_tags(
    probability: NDArray[np.float64], truth: NDArray[np.bool_], class_names: Sequence[str], *, threshold: float
) -> dict[str, Any]:
    """Compares what a classifier says of the tags of images with the right ones.

    Args:
        probability: Shape (N, K), between 0 and 1; rows of NaN, of images that could not be read, do not count.
        truth: Shape (N, K).
        class_names: The K names.
        threshold: A probability beside one half from which on a class counts as found.

    Returns:
        `images`, `unreadable`; `map`, the mean of the average precision over the classes that some image shows;
        `micro_f1`, of all pairs, and `macro_f1`, the mean over the same classes, both at one half, and with `_tuned`
        at `threshold`; all between 0 and 1, `map` and `macro_f1` None where no image shows any class. `per_class` has
        for each class its name, the images that show it, `average_precision`, `f1` and `f1_tuned`.

    Example:
        >>> import numpy as np
        >>> truth = np.array([[True, False], [False, True], [True, True]])
        >>> found = measure_tags(np.where(truth, 0.4, 0.1), truth, ["cat", "dog"], threshold=0.3)
        >>> found["map"], found["micro_f1"], found["micro_f1_tuned"]
        (1.0, 0.0, 1.0)
    """
    read = ~np.isnan(probability).any(axis=1)
    probability, truth = probability[read], truth[read]
    precisions = average_precisions(probability, truth)
    found = {"f1": probability >= 0.5, "f1_tuned": probability >= threshold}
    rows: list[dict[str, Any]] = [
        {
            "class_name": name,
            "images": int(truth[:, index].sum()),
            "average_precision": precisions[index],
            **{key: _f1(truth[:, index], tags[:, index]) for key, tags in found.items()},
        }
        for index, name in enumerate(class_names)
    ]
    shown = [row for row in rows if row["images"]]
    return {
        "images": int(read.sum()),
        "unreadable": int((~read).sum()),
        "map": _mean(precisions),
        **{f"micro_{key}": _f1(truth, tags) for key, tags in found.items()},
        **{f"macro_{key}": _mean([row[key] for row in shown]) for key in found},
        "threshold": threshold,
        "per_class": rows,
    }


def _f1(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    both = float(truth.sum() + found.sum())
    return 2 * float((truth & found).sum()) / both if both else 0.0


def best_f1_threshold(probability: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Returns the probability from which on to call something found, so that the F1 is best; 0.5 if nothing is right.

    Args:
        probability: Shape (n,), between 0 and 1.
        truth: Shape (n,): what is right.

    Example:
        >>> import numpy as np
        >>> best_f1_threshold(np.array([0.1, 0.3, 0.4]), np.array([False, True, True]))
        0.3
    """
    from sklearn.metrics import precision_recall_curve

    if not truth.any():
        return 0.5
    precision, recall, thresholds = precision_recall_curve(truth, probability)
    total = np.maximum(precision + recall, 1e-12)[:-1]  # the last has no threshold
    return float(thresholds[np.argmax(precision[:-1] * recall[:-1] / total)])


def accuracy(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Returns the share of right predictions, between 0 and 1; those of -1 do not count, and of none it is 0.

    Example:
        >>> import numpy as np
        >>> accuracy(np.array([0, 1, -1]), np.array([0, 0, 0]))  # the last could not be read
        0.5
    """
    readable = predicted >= 0
    return float((predicted == labels)[readable].mean()) if readable.any() else 0.0


def measure(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], class_names: Sequence[str]
) -> dict[str, float | int | list[dict[str, Any]] | None]:
    """Compares predictions with true labels.

    Args:
        predicted: Shape (N,), values 0 to K-1, or -1 where the image could not be read.
        labels: Shape (N,), values 0 to K-1.
        class_names: The K names.

    Returns:
        `images`, `unreadable`, `accuracy` and `balanced_accuracy` (the mean over the classes that occur), between 0 and
        1, and `per_class`: for each class its name, images and accuracy, None where there are no images.

    Example:
        >>> import numpy as np
        >>> found = measure(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), ["cat", "dog"])
        >>> found["accuracy"], found["balanced_accuracy"]
        (0.75, 0.75)
    """
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(class_names):
        own = (labels == index) & (predicted >= 0)
        rows.append(
            {
                "class_name": name,
                "images": int(own.sum()),
                "accuracy": float((predicted[own] == index).mean()) if own.any() else None,
            }
        )
    known = [row["accuracy"] for row in rows if row["accuracy"] is not None]
    return {
        "images": int((predicted >= 0).sum()),
        "unreadable": int((predicted < 0).sum()),
        "accuracy": accuracy(predicted, labels),
        "balanced_accuracy": float(np.mean(known)) if known else 0.0,
        "per_class": rows,
    }


def calibration(quality: NDArray[np.float32], right: NDArray[np.bool_]) -> dict[str, float | list[list[float]] | None]:
    """Compares probabilities with what came true.

    Args:
        quality: Shape (n,), from 0 to 1: the probability that the label is right.
        right: Shape (n,): whether it is.

    Returns:
        `brier`, the mean squared difference (Brier, 1950), and `ece`, the expected calibration error (Guo et al., ICML
        2017): the mean over the images of the distance between mean probability and share of right labels in their one
        of 10 equal bins. Both from 0, which is best, to 1. `even_odds` is the quality from which on at least every
        other label is right, by isotonic regression: 0.5 if a threshold of one half is where it should be, and 1 where
        it is so of none. All None without images. `reliability` has for each bin its images, the sum of their
        probabilities, and how many of them are right.

    Example:
        >>> import numpy as np
        >>> quality = np.array([0.9, 0.9, 0.1, 0.1], dtype=np.float32)
        >>> found = calibration(quality, np.array([True, True, False, False]))
        >>> round(found["brier"], 3), round(found["ece"], 3)
        (0.01, 0.1)
    """
    if not quality.size:
        return {"brier": None, "ece": None, "even_odds": None, "reliability": []}
    chance, true = quality.astype(np.float64), right.astype(np.float64)
    bins = np.minimum((chance * _BINS).astype(np.int64), _BINS - 1)
    count, expected, found = (
        np.bincount(bins, weights=each, minlength=_BINS) for each in (np.ones_like(chance), chance, true)
    )
    return {
        "brier": float(np.square(chance - true).mean()),
        "ece": float(np.abs(expected - found).sum() / len(chance)),
        "even_odds": _even_odds(chance, true),
        "reliability": np.stack([count, expected, found], axis=1).tolist(),
    }


def _even_odds(chance: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    from sklearn.isotonic import IsotonicRegression

    share = IsotonicRegression().fit_transform(chance, true)
    return float(chance[share >= _EVEN].min(initial=1.0))
