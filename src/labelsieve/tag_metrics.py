"""Metrics of verdicts and classifiers of several labels per image against the truth, see `metrics.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.metrics import f1, precision_recall_f1, ranking_scores


def evaluate_pairs(
    *,
    truth: NDArray[np.bool_],
    tags: NDArray[np.bool_],
    quality: NDArray[np.float32],
    flagged: NDArray[np.bool_],
) -> dict[str, float | int | None]:
    """Scores verdicts on wrong and missing tags against the truth.

    Args:
        truth: Shape (N, K): the true tags.
        tags: Shape (N, K): the given tags.
        quality: Shape (N, K), between 0 and 1, higher = given state more likely right; rows with NaN (unreadable
            images) do not count.
        flagged: Shape (N, K): which states are flagged.

    Returns:
        For `wrong`, among all given tags, and for `missing`, among all absent ones: `*_precision`, `*_recall` and
        `*_f1` of the flags (0 where nothing is flagged or nothing is an issue), `*_auroc` and `*_average_precision` of
        `1 - quality` (None where all are right or none is), and `*_rate`, the share of issues; `map`, the average
        precision of issues of both kinds, averaged over the classes with an issue (None without any); `images`.

    Example:
        >>> import numpy as np
        >>> truth, tags = np.array([[True, False], [True, True]]), np.array([[True, True], [False, True]])
        >>> quality = np.array([[0.9, 0.2], [0.4, 0.8]], dtype=np.float32)
        >>> metrics = evaluate_pairs(truth=truth, tags=tags, quality=quality, flagged=quality < 0.5)
        >>> metrics["wrong_f1"], metrics["missing_f1"], metrics["map"]
        (1.0, 1.0, 1.0)
    """
    readable = ~np.isnan(quality).any(axis=1)
    if not readable.all():
        truth, tags, quality, flagged = truth[readable], tags[readable], quality[readable], flagged[readable]
    return {
        **_issue_metrics("wrong", ~truth[tags], quality[tags], flagged[tags]),
        **_issue_metrics("missing", truth[~tags], quality[~tags], flagged[~tags]),
        "map": _mean(average_precisions(-quality, truth != tags)),
        "images": int(readable.sum()),
    }


def _issue_metrics(
    kind: str, issue: NDArray[np.bool_], quality: NDArray[np.float32], flagged: NDArray[np.bool_]
) -> dict[str, float | int | None]:
    return {
        **precision_recall_f1(kind, issue, flagged),
        **{f"{kind}_{name}": value for name, value in ranking_scores(issue, quality).items()},
        f"{kind}_rate": float(issue.mean()) if issue.size else 0.0,
    }


def average_precisions(scores: NDArray[Any], truth: NDArray[np.bool_]) -> list[float | None]:
    """Returns the average precision of each class (`average_precision_score` of scikit-learn).

    Args:
        scores: Shape (N, K), higher = more likely.
        truth: Shape (N, K): the true tags.

    Returns:
        K numbers between 0 and 1, None for a class that no image has. Their mean over the other classes is the mAP.

    Example:
        >>> import numpy as np
        >>> truth = np.array([[True, False], [False, False], [True, False]])
        >>> average_precisions(np.array([[0.9, 0.1], [0.5, 0.1], [0.6, 0.1]]), truth)
        [1.0, None]
    """
    from sklearn.metrics import average_precision_score

    pairs = zip(truth.T, scores.T, strict=True)
    return [
        float(average_precision_score(right, class_scores)) if right.any() else None for right, class_scores in pairs
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    present = [each for each in values if each is not None]
    return float(np.mean(present)) if present else None


def measure_tags(
    probability: NDArray[np.float64], truth: NDArray[np.bool_], class_names: Sequence[str], *, threshold: float
) -> dict[str, Any]:
    """Compares predicted probabilities of tags with the true tags.

    Args:
        probability: Shape (N, K), between 0 and 1; rows of NaN (unreadable images) do not count.
        truth: Shape (N, K).
        class_names: The K names.
        threshold: A second threshold, beside 0.5, from which on a class counts as predicted.

    Returns:
        `images`, `unreadable`; `map`, the average precision averaged over the classes that occur; `micro_f1`, of all
        pairs, and `macro_f1`, averaged over the same classes, both at 0.5, and with the suffix `_tuned` at
        `threshold`; all between 0 and 1, `map` and `macro_f1` None if no class occurs. `per_class` has for each class
        its name, the number of images with it, `average_precision`, `f1` and `f1_tuned`.

    Example:
        >>> import numpy as np
        >>> truth = np.array([[True, False], [False, True], [True, True]])
        >>> metrics = measure_tags(np.where(truth, 0.4, 0.1), truth, ["cat", "dog"], threshold=0.3)
        >>> metrics["map"], metrics["micro_f1"], metrics["micro_f1_tuned"]
        (1.0, 0.0, 1.0)
    """
    readable = ~np.isnan(probability).any(axis=1)
    probability, truth = probability[readable], truth[readable]
    precisions = average_precisions(probability, truth)
    predicted = {"f1": probability >= 0.5, "f1_tuned": probability >= threshold}
    rows: list[dict[str, Any]] = [
        {
            "class_name": name,
            "images": int(truth[:, index].sum()),
            "average_precision": precisions[index],
            **{key: f1(truth[:, index], tags[:, index]) for key, tags in predicted.items()},
        }
        for index, name in enumerate(class_names)
    ]
    occurring = [row for row in rows if row["images"]]
    return {
        "images": int(readable.sum()),
        "unreadable": int((~readable).sum()),
        "map": _mean(precisions),
        **{f"micro_{key}": f1(truth, tags) for key, tags in predicted.items()},
        **{f"macro_{key}": _mean([row[key] for row in occurring]) for key in predicted},
        "threshold": threshold,
        "per_class": rows,
    }


def best_f1_threshold(probability: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Returns the threshold with the highest F1; 0.5 if nothing is true.

    Args:
        probability: Shape (n,), between 0 and 1.
        truth: Shape (n,): true where the tag is right.

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
