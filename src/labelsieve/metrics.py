"""Metrics of verdicts, classifiers and probabilities against the truth; each metric is defined here only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Metric:
    """A metric: its title, which value is best, and its format in a table.

    Attributes:
        title: Heading of its column in a table.
        name: Longer name where there is room; empty if the title is enough.
        best: Which value is best; `none` if it is neither good nor bad.
        is_share: Whether it is between 0 and 1 and shown in percent; otherwise the plain number is shown.
        digits: Number of decimals.

    Example:
        >>> error = Metric("error", best="lowest")
        >>> error.text(0.125), max([0.3, 0.1, 0.2], key=error.merit)
        ('12.5', 0.1)
    """

    title: str
    name: str = ""
    best: Literal["highest", "lowest", "none"] = "highest"
    is_share: bool = True
    digits: int = 1

    @property
    def full_name(self) -> str:
        """Returns the name or, without one, the title."""
        return self.name or self.title

    def merit(self, value: float) -> float:
        """Returns the value with its sign such that higher is better, unless no value is best."""
        return -value if self.best == "lowest" else value

    def text(self, value: float) -> str:
        """Returns the value as formatted in a table, without a unit."""
        return f"{100 * value if self.is_share else value:.{self.digits}f}"


DETECTION = {
    "clean_precision": Metric("clean P", "precision of the labels that are kept"),
    "clean_recall": Metric("clean R", "recall of the labels that are kept"),
    "clean_f1": Metric("clean F1", "F1 of the labels that are kept"),
    "issue_precision": Metric("issue P", "precision of the flagged labels"),
    "issue_recall": Metric("issue R", "recall of the flagged labels"),
    "issue_f1": Metric("issue F1", "F1 of the flagged labels"),
    "auroc": Metric("AUROC"),
    "average_precision": Metric("AP", "average precision of wrong labels"),
}
"""Metrics of verdicts by :func:`evaluate`, between 0 and 1.

As in all tables of metrics here, a new metric is a line here and a value in the function. Terminal, report,
comparison, model card and experiments derive from these tables.
"""
RATES = {
    "flagged_rate": Metric("flagged", best="none"),
    "noise_rate": Metric("noise rate", best="none"),
}
"""Rates by :func:`evaluate`."""
CALIBRATION = {
    "brier": Metric("Brier score", best="lowest"),
    "ece": Metric("calibration error", best="lowest"),
    "even_odds": Metric("p_clean from which on every other label is right", best="none"),
}
"""Metrics of probabilities by :func:`calibration`, between 0 and 1."""
CLASSIFICATION = {
    "accuracy": Metric("accuracy"),
    "balanced_accuracy": Metric("balanced accuracy", "mean over the classes"),
}
"""Metrics of a classifier by :func:`measure`, between 0 and 1."""
TAG_DETECTION = {
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
"""Metrics of verdicts on tags by :func:`labelsieve.tag_metrics.evaluate_pairs`, between 0 and 1."""
TAG_CLASSIFICATION = {"map": Metric("mAP")}
"""Metrics of a classifier of tags by :func:`labelsieve.tag_metrics.measure_tags`, between 0 and 1."""
TAG_DECISIONS = {"micro_f1": Metric("micro F1"), "macro_f1": Metric("macro F1")}
"""Further metrics by the same, at the threshold 0.5 and, in names that end in `_tuned`, at a tuned threshold."""
ESTIMATES = {
    "estimated_noise_rate": Metric("estimated noise rate", best="none"),
    "noise_rate_error": Metric("error of the estimated noise rate", best="lowest"),
    "wrong_labels_covered": Metric("interval covers the wrong labels"),
    "right_flags_covered": Metric("the right flags"),
    "missed_labels_covered": Metric("the missed labels"),
    "predicted_accuracy": Metric("predicted label = true label"),
}
"""Further metrics of a detector of wrong labels in an experiment."""
TEST = {f"test_{name}": replace(metric, title=f"test {metric.title}") for name, metric in CLASSIFICATION.items()}
"""Metrics, on test images, of the classifier that a detector has trained."""
FINE_TUNING = {
    "test_accuracy_start": Metric("test accuracy before fine-tuning"),
    "test_accuracy_best": Metric("test accuracy of the best epoch, chosen on the test set"),
    "used_rate": Metric("trained on"),
    "used_clean": Metric("of these, right"),
}
"""Further metrics of a classifier that is trained on a selection, in an experiment."""
TAG_RATES = {
    "wrong_flagged": Metric("flagged of the given tags", best="none"),
    "missing_flagged": Metric("flagged of the absent tags", best="none"),
    "commission": Metric("wrong of the given tags", best="none"),
    "estimated_commission": Metric("estimated wrong of the given tags", best="none"),
    "omission": Metric("missing of the right tags", best="none"),
    "estimated_omission": Metric("estimated missing of the right tags", best="none"),
}
"""Rates of tags of a detector of wrong and missing tags, in an experiment."""
COST = {
    "seconds": Metric("seconds", best="none", is_share=False),
    "memory": Metric("peak memory, GB", best="none", is_share=False, digits=2),
    "device_memory": Metric("peak memory of the GPU, GB", best="none", is_share=False, digits=2),
}
"""Time and memory."""
METRICS = DETECTION | RATES | ESTIMATES | CALIBRATION | TEST | FINE_TUNING | TAG_DETECTION | TAG_RATES | COST
"""All metrics of an experiment, in the order of its columns."""
METRIC_TITLES = {name: metric.title for name, metric in DETECTION.items()}
SIDE_SCORES = ("precision", "recall", "f1")
"""Terminal and report have a table of these scores for both sides, and a line for each other metric."""
_OF_SIDES = {f"{side}_{score}" for side in ("clean", "issue") for score in SIDE_SCORES}
OTHER_METRICS = {name: metric.full_name for name, metric in DETECTION.items() if name not in _OF_SIDES}
# Bins of the calibration error, and the accuracy at even odds.
_BINS, _EVEN = 10, 0.5


class Interval(NamedTuple):
    """An estimate and the ends of its interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of_record(cls, record: Any) -> Interval | None:
        """Reads an interval from the `estimate` of `run.json`; None unless it has three numbers.

        Example:
            >>> Interval.of_record({"value": 6, "low": 3, "high": 9})
            Interval(value=6.0, low=3.0, high=9.0)
        """
        values = [record.get(name) for name in cls._fields] if isinstance(record, Mapping) else []
        numbers = [float(each) for each in values if isinstance(each, int | float) and math.isfinite(each)]
        return cls(*numbers) if len(numbers) == len(cls._fields) else None


def evaluate(
    *, wrong: NDArray[np.bool_], flagged: NDArray[np.bool_], quality: NDArray[np.float32]
) -> dict[str, float | int | None]:
    """Scores verdicts against the truth; the names of the metrics start with the positive class.

    The paper counts clean labels as the positive class (`clean_*`), cleanlab counts issues (`issue_*`).

    Args:
        wrong: Shape (N,): true where the given label differs from the true one.
        flagged: Shape (N,): true where the label was flagged.
        quality: Shape (N,), between 0 and 1, higher = more likely correct.

    Returns:
        `clean_precision`, `clean_recall`, `clean_f1`, `issue_precision`, `issue_recall`, `issue_f1`, all between 0 and
        1 (0 where nothing is flagged or nothing is wrong), `auroc` and `average_precision` of `1 - quality` for the
        issues (None if all labels are right or all are wrong), `noise_rate`, `flagged_rate` and `images`.

    Example:
        >>> import numpy as np
        >>> wrong, flagged = np.array([True, True, False, False]), np.array([True, False, False, False])
        >>> metrics = evaluate(wrong=wrong, flagged=flagged, quality=np.array([0.1, 0.6, 0.8, 0.9]))
        >>> metrics["issue_precision"], metrics["issue_recall"], metrics["auroc"]
        (1.0, 0.5, 1.0)
    """
    return {
        **precision_recall_f1("clean", ~wrong, ~flagged),
        **precision_recall_f1("issue", wrong, flagged),
        **ranking_scores(wrong, quality),
        "noise_rate": float(wrong.mean()) if wrong.size else 0.0,
        "flagged_rate": float(flagged.mean()) if wrong.size else 0.0,
        "images": int(wrong.size),
    }


def ranking_scores(wrong: NDArray[np.bool_], quality: NDArray[np.float32]) -> dict[str, float | None]:
    """Returns `auroc` and `average_precision` of `1 - quality` for wrong items, (n,); None if all or none are wrong."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    mixed = bool(wrong.any() and not wrong.all())
    suspicion = -quality  # the ranking of 1 - quality, which would round the smallest qualities to ties
    return {
        "auroc": float(roc_auc_score(wrong, suspicion)) if mixed else None,
        "average_precision": float(average_precision_score(wrong, suspicion)) if mixed else None,
    }


def precision_recall_f1(side: str, actual: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> dict[str, float]:
    """Returns precision, recall and F1 of one class of N items; 0 where they are undefined.

    Args:
        side: Prefix of their names, such as `clean` or `issue`.
        actual: Shape (N,): which items are positive.
        predicted: Shape (N,): which ones are predicted to be.
    """
    hits = float((actual & predicted).sum())
    return {
        f"{side}_precision": hits / float(predicted.sum()) if predicted.any() else 0.0,
        f"{side}_recall": hits / float(actual.sum()) if actual.any() else 0.0,
        f"{side}_f1": f1(actual, predicted),
    }


def f1(actual: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """Returns the F1, 0 to 1, of two arrays of one shape, any: which items are positive and which are predicted."""
    both = float(actual.sum() + predicted.sum())
    return 2 * float((actual & predicted).sum()) / both if both else 0.0


def accuracy(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Returns the share of correct predictions, between 0 and 1, without those of -1; 0 if none is left.

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
        1, and `per_class`: for each class its name, number of images and accuracy, None without images.

    Example:
        >>> import numpy as np
        >>> metrics = measure(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), ["cat", "dog"])
        >>> metrics["accuracy"], metrics["balanced_accuracy"]
        (0.75, 0.75)
    """
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(class_names):
        in_class = (labels == index) & (predicted >= 0)
        rows.append(
            {
                "class_name": name,
                "images": int(in_class.sum()),
                "accuracy": float((predicted[in_class] == index).mean()) if in_class.any() else None,
            }
        )
    accuracies = [row["accuracy"] for row in rows if row["accuracy"] is not None]
    return {
        "images": int((predicted >= 0).sum()),
        "unreadable": int((predicted < 0).sum()),
        "accuracy": accuracy(predicted, labels),
        "balanced_accuracy": float(np.mean(accuracies)) if accuracies else 0.0,
        "per_class": rows,
    }


def calibration(quality: NDArray[np.float32], right: NDArray[np.bool_]) -> dict[str, float | list[list[float]] | None]:
    """Measures how well probabilities match the outcomes.

    Args:
        quality: Shape (n,), from 0 to 1: the probability that the label is right.
        right: Shape (n,): whether it is.

    Returns:
        `brier`, the mean squared difference (Brier, 1950), and `ece`, the expected calibration error (Guo et al., ICML
        2017): the mean over the images of the distance between mean probability and share of right labels in their one
        of 10 equal bins. Both are between 0, the best value, and 1. `even_odds` is the lowest quality at which at
        least half of the labels are right, by isotonic regression: 0.5 if a threshold of one half is the right one,
        1 if there is no such quality. All None without images. `reliability` has for each bin the number of images,
        the sum of their probabilities, and the number of right labels.

    Example:
        >>> import numpy as np
        >>> quality = np.array([0.9, 0.9, 0.1, 0.1], dtype=np.float32)
        >>> metrics = calibration(quality, np.array([True, True, False, False]))
        >>> round(metrics["brier"], 3), round(metrics["ece"], 3)
        (0.01, 0.1)
    """
    if not quality.size:
        return {"brier": None, "ece": None, "even_odds": None, "reliability": []}
    chance, true = quality.astype(np.float64), right.astype(np.float64)
    bins = np.minimum((chance * _BINS).astype(np.int64), _BINS - 1)
    count, expected, right_count = (
        np.bincount(bins, weights=each, minlength=_BINS) for each in (np.ones_like(chance), chance, true)
    )
    return {
        "brier": float(np.square(chance - true).mean()),
        "ece": float(np.abs(expected - right_count).sum() / len(chance)),
        "even_odds": _even_odds(chance, true),
        "reliability": np.stack([count, expected, right_count], axis=1).tolist(),
    }


def _even_odds(chance: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    from sklearn.isotonic import IsotonicRegression

    share = IsotonicRegression().fit_transform(chance, true)
    return float(chance[share >= _EVEN].min(initial=1.0))
