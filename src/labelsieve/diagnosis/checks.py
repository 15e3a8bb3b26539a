"""Checks of a scan: diagnoses with measured values, their meaning and advice, to read before trusting the verdicts.

Each diagnosis comes from one small function in `CHECKS`. True labels are never used, because real scans have none. The
thresholds are rules of thumb, chosen so that a healthy scan of usual size has no diagnosis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import listed
from labelsieve.core.quantities import counted, percent
from labelsieve.data.labelled import Labelled
from labelsieve.detect.scores import GUESSING, Scores
from labelsieve.diagnosis.statistics import ScanStatistics, shortened
from labelsieve.verdicts import Verdicts

Diagnosis = dict[str, str]
"""Keys: `code` (fixed name), `level` (`info`, `warning`, `problem`), `figure` (measured), `message` and `advice`."""

# Minimum agreement, on the scale of `GUESSING`; below it, the model hardly knows the class names.
WEAK_AGREEMENT = 0.15
# With few images, chance agreement varies, so two standard errors are required, but at most this agreement.
MAX_REQUIRED_AGREEMENT = 0.5
# Significance level for all classes together (Bonferroni). A class with at most `LOW_AGREEMENT` is reported only if the
# median class has at least `TYPICAL_AGREEMENT`: otherwise the problem is the model.
CHANCE_LEVEL, TYPICAL_AGREEMENT, LOW_AGREEMENT = 0.01, 0.2, 0.05
# A good detector wrongly flags about 3 % of the clean images (the paper's Table 1); twice that is too many.
OVER_FILTERED = 0.06
# Minimum number of images for a diagnosis: fewer can be due to chance, whatever their share of the data set.
MIN_IMAGES = 5
# Median confidence below which suggestions are unsure, and minimum share of images with such flags for a diagnosis.
LOW_CONFIDENCE, MANY_FLAGGED = 0.4, 0.1
# Minimum share and number of images left in a class: with fewer, it cannot be learned or tested.
MIN_SHARE_KEPT, MIN_KEPT = 0.05, 2
# Human labels are rarely wrong for more than half of a class (CIFAR-100N: 40 % over all classes).
MAX_FLAGGED = 0.6
# Minimum number of images per class to fine-tune a classifier; fewer are reported if the scan removed this share.
MIN_PER_CLASS, MANY_REMOVED = 10, 0.3
# Unflagged labels that the model contradicts with this confidence, and their maximum share: a good selection is 95 to
# 99 % right (the paper's Table 1).
CONFIDENT, CONTRADICTED = 0.8, 0.05
# Uniform label quality from 0 to 1 has 20 % within 0.1 of the threshold; a good detector has less.
MARGIN, MAX_NEAR_THRESHOLD = 0.1, 0.3
# Above a tenth, the cause is probably a wrong folder, a damaged copy or a missing decoder, not single damaged files.
MANY_UNREADABLE = 0.1
# Ratio of the largest to the smallest class; below it, class sizes have little influence on the scores.
IMBALANCE = 20
# Minimum share of selected images; with less, training has almost nothing to learn from.
MIN_SELECTED = 0.05
CONFLICTING_COPIES = "duplicates-conflict"
"""The `code` of identical images with different labels, which a review can resolve."""


def diagnose(images: Labelled, scores: Scores, verdicts: Verdicts) -> list[Diagnosis]:
    """Finds problems of the verdicts, and of a classifier trained on the unflagged images.

    Args:
        images: N images, or rows of features; `truth` is never used.
        scores: Scores of the detector.
        verdicts: Verdicts from :func:`labelsieve.verdicts.decide`.

    Returns:
        The diagnoses, problems first; see `Diagnosis`.
    """
    scan = ScanStatistics(images, scores, verdicts)
    checks = CHECKS if scan.rows.size else (_unreadable,)
    diagnoses = [diagnosis for check in checks if (diagnosis := check(scan))]
    return sorted(diagnoses, key=lambda each: ("problem", "warning", "info").index(each["level"]))


def _diagnosis(
    code: str, level: Literal["info", "warning", "problem"], *, figure: str, message: str, advice: str
) -> Diagnosis:
    return {"code": code, "level": level, "figure": figure, "message": message, "advice": advice}


def _near_chance(scan: ScanStatistics) -> Diagnosis | None:
    sizes, share = scan.sizes[scan.sizes > 0], scan.scores.balanced_agreement
    if share is None or len(sizes) < 2:
        return None
    # expected mean agreement over classes of any model that ignores the images
    chance = 1 / len(sizes)
    spread = float(np.sqrt(chance * (1 - chance) * (1 / sizes).sum()) / len(sizes))
    above, two_errors = (share - chance) / (1 - chance), 2 * spread / (1 - chance)
    if above >= max(WEAK_AGREEMENT, min(MAX_REQUIRED_AGREEMENT, two_errors)):
        return None
    guessing = above < GUESSING
    return _diagnosis(
        "zero-shot-near-chance",
        "problem" if guessing else "warning",
        figure=f"The zero-shot model agrees with {percent(share)} of the given labels (mean over classes); "
        f"guessing would with {percent(chance)}",
        message="It cannot tell these classes apart, so whatever the verdicts take from it means nothing."
        if guessing
        else "It hardly knows these classes, or the images are too few to tell, so the verdicts are shaky.",
        advice="Check that labels and images belong together and use class names that would stand in a caption "
        "(--class-names). If that does not help, take a --model trained on this kind of image.",
    )


def _class_not_understood(scan: ScanStatistics) -> Diagnosis | None:
    from scipy.special import bdtr  # binomial; imported here to keep the package quick to import

    if scan.scores.zero_shot_per_class is None:
        return None
    agreement = np.nan_to_num(scan.scores.zero_shot_per_class)
    typical = float(np.median(agreement[scan.sizes > 0]))
    hits = np.rint(agreement * scan.sizes)
    is_low = bdtr(hits, scan.sizes, typical) < CHANCE_LEVEL / len(scan.sizes)
    classes = np.flatnonzero((agreement <= LOW_AGREEMENT) & (scan.sizes > 0) & is_low)
    if typical < TYPICAL_AGREEMENT or not classes.size:
        return None
    classes = classes[np.lexsort((-scan.sizes[classes], agreement[classes]))]
    return _diagnosis(
        "class-not-understood",
        "warning",
        figure=f"The zero-shot model agrees with {percent(typical)} of the labels of a typical class, but hardly with "
        f"those of {scan.names(classes, lambda k: f'{int(hits[k]):,} of {scan.sizes[k]:,}')}",
        message="It probably does not understand these names as you do, so correct labels may be flagged.",
        advice="Give these classes names that would stand in a caption (--class-names), and look at some of their "
        "images: they may show something else, or two classes may be swapped.",
    )


def _all_or_none_flagged(scan: ScanStatistics) -> Diagnosis | None:
    if scan.flagged.all():
        return _diagnosis(
            "everything-flagged",
            "problem",
            figure=f"All {len(scan.rows):,} labels are flagged",
            message="This says nothing about single labels: the detector failed on these data.",
            advice="Check that labels and class names belong to these images, then try another --model or --detector.",
        )
    if scan.flagged.any():
        return None
    return _diagnosis(
        "nothing-flagged",
        "info",
        figure=f"None of {len(scan.rows):,} labels is flagged; the model would name another class for "
        f"{percent(1 - float(scan.agrees.mean()))} of the images",
        message="Either the labels are right, or the detector cannot tell wrong ones from right ones.",
        advice="Look at the images with the lowest label quality: if some are wrong, try another --detector.",
    )


def _over_filtered(scan: ScanStatistics) -> Diagnosis | None:
    agreed = int((scan.flagged & scan.agrees).sum())
    of_flagged = agreed / max(int(scan.flagged.sum()), 1)
    if scan.flagged.all() or agreed < max(MIN_IMAGES, OVER_FILTERED * len(scan.rows)) or of_flagged <= 0.5:
        return None
    return _diagnosis(
        "over-filtering",
        "warning",
        figure=f"{percent(scan.share_flagged)} of the labels are flagged, and the model itself gives "
        f"{percent(of_flagged)} of those the same label",
        message="Most flagged labels seem to be right: clean images are being thrown away.",
        advice="Look at flagged images whose given and suggested label are the same. If they are right, do not drop "
        f"flagged images unseen; {'train less (--epochs) or ' if scan.scores.history else ''}try another --detector.",
    )


def _unsure_suggestions(scan: ScanStatistics) -> Diagnosis | None:
    disagrees = scan.flagged & ~scan.agrees
    if scan.flagged.all() or int(disagrees.sum()) < max(MIN_IMAGES, MANY_FLAGGED * len(scan.rows)):
        return None
    typical = float(np.median(scan.confidence[disagrees]))
    if typical >= LOW_CONFIDENCE:
        return None
    return _diagnosis(
        "unsure-suggestions",
        "warning",
        figure=f"{percent(float(disagrees.mean()))} of the labels are flagged because the model prefers another class, "
        f"with a typical confidence of only {percent(typical)}",
        message="The model contradicts more labels than it is sure about: many of them may be right.",
        advice="Trust the top of the ranking more than its end; a stronger --model makes surer suggestions.",
    )


def _emptied_classes(scan: ScanStatistics) -> Diagnosis | None:
    classes = np.flatnonzero(_is_emptied(scan))
    if not classes.size or scan.flagged.all():
        return None
    classes = classes[np.lexsort((-scan.sizes[classes], scan.kept[classes]))]
    return _diagnosis(
        "emptied-classes",
        "problem" if (scan.kept[classes] == 0).any() else "warning",
        figure=f"Without the flagged images {counted(classes.size, 'class is', 'classes are')} left all but empty: "
        f"{scan.names(classes, lambda k: f'{scan.kept[k]:,} of {scan.sizes[k]:,} left')}",
        message="A classifier trained on the rest cannot learn them.",
        advice="Look at their flagged images first. If the labels are right, rename the class (--class-names) and scan "
        "again; if they are wrong, the class needs new images.",
    )


def _is_emptied(scan: ScanStatistics) -> NDArray[np.bool_]:
    has_few = (scan.kept < MIN_KEPT) | (scan.kept < MIN_SHARE_KEPT * scan.sizes)
    return has_few & (scan.lost > 0)


def _heavily_flagged_classes(scan: ScanStatistics) -> Diagnosis | None:
    from scipy.special import bdtrc  # binomial; imported here to keep the package quick to import

    share = scan.lost / np.maximum(scan.sizes, 1)
    # a test, because some of many small classes lose many images by chance
    p_value = bdtrc(scan.lost - 1.0, scan.sizes, min(scan.share_flagged, MAX_FLAGGED))
    is_high = (p_value < CHANCE_LEVEL / len(scan.sizes)) | (scan.share_flagged > MAX_FLAGGED)
    classes = np.flatnonzero(is_high & (scan.sizes >= MIN_IMAGES) & (share > MAX_FLAGGED) & ~_is_emptied(scan))
    if not classes.size:
        return None
    classes = classes[np.lexsort((-scan.sizes[classes], -share[classes]))]
    return _diagnosis(
        "classes-hard-hit",
        "warning",
        figure=f"{counted(classes.size, 'class loses', 'classes lose')} more than {percent(MAX_FLAGGED)} of the images"
        f": {scan.names(classes, lambda k: f'{scan.lost[k]:,} of {scan.sizes[k]:,}')}",
        message="Either most of these labels are wrong, or clean images are thrown away (low clean recall).",
        advice="Look at the flagged images of these classes. If they are right, rename the class (--class-names) or "
        "try another --model.",
    )


def _few_images_left(scan: ScanStatistics) -> Diagnosis | None:
    classes, kept = int(np.count_nonzero(scan.sizes)), int(scan.kept.sum())
    if scan.flagged.all() or kept >= MIN_PER_CLASS * classes or scan.share_flagged < MANY_REMOVED:
        return None
    return _diagnosis(
        "few-images-left",
        "warning",
        figure=f"{kept:,} of {len(scan.rows):,} images are left, {kept / classes:.1f} for each class",
        message="These are few to train a classifier on; the scan took the others away (low clean recall).",
        advice="Look through the flagged images; keep those whose labels are right and correct the others.",
    )


def _contradicted_labels(scan: ScanStatistics) -> Diagnosis | None:
    count = int((~scan.flagged & ~scan.agrees & (scan.confidence >= CONFIDENT)).sum())
    share = count / max(int(scan.kept.sum()), 1)
    if count < MIN_IMAGES or share < CONTRADICTED:
        return None
    return _diagnosis(
        "wrong-labels-survive",
        "warning",
        figure=f"For {count:,} images that were kept ({percent(share)}) the model names another class with at "
        f"least {percent(CONFIDENT)} confidence",
        message="Wrong labels probably survive among those kept (low clean precision).",
        advice="Scan again with --detector deft --evidence threshold (features: --detector knn), which flags all "
        "labels that the model contradicts, or look at the images just above the threshold before you train on them.",
    )


def _quality_near_threshold(scan: ScanStatistics) -> Diagnosis | None:
    threshold = scan.scores.rule.threshold
    if threshold is None or not MARGIN <= threshold <= 1 - MARGIN:  # clear cases are at the ends of the scale
        return None
    near = np.abs(scan.scores.label_quality[scan.rows] - threshold) <= MARGIN
    if int(near.sum()) < MIN_IMAGES or near.mean() < MAX_NEAR_THRESHOLD:
        return None
    return _diagnosis(
        "quality-near-threshold",
        "warning",
        figure=f"{percent(float(near.mean()))} of the images have a label quality within {MARGIN:g} of the threshold "
        f"({threshold:.3g})",
        message="The detector can hardly tell there: wrong labels survive and right ones are flagged.",
        advice=("Train longer (--epochs) or use" if scan.scores.history else "Use")
        + " a stronger --model, and go by the ranking rather than by the flags.",
    )


def _collapsed_selection(scan: ScanStatistics) -> Diagnosis | None:
    values = [(number, record.get("selected")) for number, record in enumerate(scan.scores.history, start=1)]
    shares = [(float(value), number) for number, value in values if isinstance(value, int | float) and value >= 0]
    if not shares or min(shares)[0] >= MIN_SELECTED:
        return None
    lowest, last = min(shares), shares[-1]
    return _diagnosis(
        "selection-collapsed",
        "problem" if last[0] < MIN_SELECTED else "warning",
        figure=f"Training selected {percent(lowest[0])} of the images in epoch {lowest[1]} of {len(values)}, and "
        f"{percent(last[0])} in epoch {last[1]}",
        message="It considered nearly all labels wrong and had almost nothing to learn from.",
        advice="Use a lower --learning-rate or more --warmup-epochs, and check that the class names fit the images.",
    )


def _conflicting_copies(scan: ScanStatistics) -> Diagnosis | None:
    # without unreadable files: empty files are equal, but not copies of an image
    contents = scan.images.contents[scan.rows]
    _, first, group, sizes = np.unique(contents, return_index=True, return_inverse=True, return_counts=True)
    differs = scan.given != scan.given[first[group]]
    mixed = np.unique(group[differs])
    if not mixed.size:
        return None
    earliest = first[mixed].min()
    other = np.flatnonzero(differs & (group == group[earliest]))[0]
    pair = scan.rows[[earliest, other]]
    example = ", ".join(f"{shortened(scan.images.ids[row])} is {scan.label(row)}" for row in pair)
    return _diagnosis(
        CONFLICTING_COPIES,
        "problem",
        figure=f"{counted(mixed.size, 'image occurs', 'images occur')} more than once with different labels "
        f"({int(sizes[mixed].sum()):,} images), for example {example}",
        message="They are the same to the last bit, so at most one label of each image can be right.",
        advice="Keep one copy of each with the right label. Where several labels fit, the classes overlap.",
    )


def _unreadable(scan: ScanStatistics) -> Diagnosis | None:
    rows = np.flatnonzero(~scan.verdicts.is_readable)
    if not rows.size:
        return None
    share, name = rows.size / len(scan.verdicts), scan.images.ids[rows[0]]
    reason = str(scan.verdicts.table["error"][int(rows[0])].as_py()).removeprefix(f"{name}: ")
    what, advice = ("image", "images"), "Copy the files again or take them out, then scan again."
    if scan.verdicts.unit == "boxes":
        what, advice = ("box", "boxes"), "Correct the boxes or their images or take them out, then scan again."
    return _diagnosis(
        "unreadable-images",
        "problem" if share >= MANY_UNREADABLE else "warning",
        figure=f"{counted(rows.size, *what)} ({percent(share)}) could not be read, for example "
        f"{shortened(name)}: {shortened(reason, 200)}",
        message="What cannot be read has no verdict.",
        advice=advice,
    )


def _constant_images(scan: ScanStatistics) -> Diagnosis | None:
    if not (rows := scan.scores.flat):
        return None
    return _diagnosis(
        "no-contrast",
        "problem" if len(rows) / len(scan.verdicts) >= MANY_UNREADABLE else "warning",
        figure=f"{counted(len(rows), 'image shows', 'images show')} nothing: all pixels are alike, in "
        f"{listed(scan.images.ids[row] for row in rows)}",
        message="Their verdicts rest on the label alone.",
        advice="Look at these files; leave them out if there is nothing to see.",
    )


def _imbalance(scan: ScanStatistics) -> Diagnosis | None:
    largest, smallest = int(scan.sizes.argmax()), int(np.where(scan.sizes, scan.sizes, len(scan.rows) + 1).argmin())
    ratio = scan.sizes[largest] / scan.sizes[smallest]
    if ratio < IMBALANCE:
        return None
    return _diagnosis(
        "class-imbalance",
        "info",
        figure=f"The largest class has {ratio:,.0f} times the images of the smallest: "
        f"{scan.names(np.array([largest, smallest]), lambda k: f'{scan.sizes[k]:,}')}",
        message="Verdicts on small classes are less sure, and a classifier will favour the large ones.",
        advice="Review small classes by eye, and collect more images of them if you can.",
    )


def _tiny_classes(scan: ScanStatistics) -> Diagnosis | None:
    single, empty = np.flatnonzero(scan.sizes == 1), np.flatnonzero(scan.sizes == 0)
    groups = ((single, "one readable image"), (empty, "no readable image"))
    figures = [
        f"{counted(classes.size, 'class has', 'classes have')} {what}: {scan.names(classes)}"
        for classes, what in groups
        if classes.size
    ]
    if not figures:
        return None
    return _diagnosis(
        "tiny-classes",
        "info",
        figure="; ".join(figures),
        message="A label can hardly be checked, and not be learned, without other images of its class.",
        advice="Add images, merge these classes with similar ones, or leave them out.",
    )


CHECKS: tuple[Callable[[ScanStatistics], Diagnosis | None], ...] = (
    _near_chance,
    _class_not_understood,
    _all_or_none_flagged,
    _over_filtered,
    _unsure_suggestions,
    _emptied_classes,
    _heavily_flagged_classes,
    _few_images_left,
    _contradicted_labels,
    _quality_near_threshold,
    _collapsed_selection,
    _conflicting_copies,
    _unreadable,
    _constant_images,
    _imbalance,
    _tiny_classes,
)
