"""How good verdicts and classifiers of several labels an image are against the truth, see `metrics.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.metrics import one_side


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
        **one_side(kind, issue, flagged),
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
