"""`labelsieve audit`: the sentences, from answers on disk to terminal, `audit.json` and report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from labelsieve import review
from labelsieve.core.errors import RunError, SettingsError
from labelsieve.review import Answer, AnswerLog, key_of
from labelsieve.review.audit import statement, with_false_flags
from labelsieve.review.known_labels import known_labels
from labelsieve.review.queue import ReviewQueue, Spec
from labelsieve.review.sampling import design
from labelsieve.verdicts import Verdicts
from small_reviews import NAMES, SmallRun, small_run

Run = Callable[..., tuple[int, str, str]]


def answers_on(
    made: SmallRun,
    rows: Iterable[int],
    *,
    wrong: Callable[[int], bool],
    mode: str = "audit",
    kind: str = "label",
) -> list[Answer]:
    """Returns answers on rows: another class where the label is wrong, else the given one."""
    answers = []
    for row in rows:
        given = NAMES[row % 3]
        said = NAMES[(row + 1) % 3] if wrong(row) else given
        answers.append(
            Answer(
                token=f"{mode}-{row}",
                key=key_of(int(made.images.contents[row])),
                id=made.images.ids[row],
                given_label=given,
                kind=kind,
                labels=(said,) if kind == "label" else (),
                reviewer="ann",
                time="2026-11-28T10:00:00+00:00",
                mode=mode,
            )
        )
    return answers


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A run of 239 readable images and one that is not, of which 60 are flagged."""
    return small_run(tmp_path_factory.mktemp("made"), images=240, flagged=60)


def is_wrong(row: int) -> bool:
    return row < 45 or row % 40 == 39


def truly_wrong(made: SmallRun) -> int:
    return sum(map(is_wrong, range(239)))


def test_all_audited_is_exact(made: SmallRun) -> None:
    order = design(made.verdicts).order
    found = statement(made.verdicts, review.resolve(answers_on(made, order, wrong=is_wrong)))
    assert (found.images, found.flagged, found.audited, found.found) == (239, 60, 239, truly_wrong(made))
    assert found.at_most == 0 and found.left is not None and tuple(found.left) == (0, 0, 0)
    assert found.right_flags is not None and np.allclose(found.right_flags, sum(map(is_wrong, range(60))) / 60)
    missed = sum(map(is_wrong, range(60, 239))) / truly_wrong(made)
    assert found.missed is not None and np.allclose(found.missed, missed, atol=1e-4)
    assert found.sentences[0].text == "0 of 239 labels are still wrong, as all were looked at."


def test_a_bound_that_chance_allows_is_not_said_to_be_certain(made: SmallRun) -> None:
    """Of 239 labels 2 were not looked at: none of them is wrong, with 50 % confidence only."""
    order = design(made.verdicts).order
    reviews = review.resolve(answers_on(made, order[:237], wrong=lambda _row: False))
    found = statement(made.verdicts, reviews, confidence=0.5)
    assert found.left is not None and tuple(found.left) == (0, 0, 0) and found.answered == 237
    assert found.sentences[0].text.startswith("With 50\xa0% confidence at most 0 of 239 labels (0\xa0%)")


def test_a_part_audited_bounds_what_is_left(made: SmallRun) -> None:
    order = design(made.verdicts).order
    reviews = review.resolve(answers_on(made, order[:90], wrong=is_wrong))
    found = statement(made.verdicts, reviews, contents=made.images.contents)
    left = truly_wrong(made) - found.found
    assert found.left is not None and found.at_most is not None
    assert found.left.low <= left <= found.at_most <= found.left.high < 60
    assert found.left.low <= found.left.value <= found.left.high
    assert found.right_flags is not None and found.right_flags.low < 45 / 60 < found.right_flags.high
    surer = statement(made.verdicts, reviews, contents=made.images.contents, confidence=0.99)
    assert surer.at_most is not None and surer.at_most > found.at_most


def test_what_the_review_answered_counts_without_another_look(made: SmallRun) -> None:
    order, flagged = design(made.verdicts).order, list(range(60))
    audited = [row for row in order if row >= 60][:40]
    answers = answers_on(made, flagged, wrong=is_wrong, mode="review") + answers_on(made, audited, wrong=is_wrong)
    found = statement(made.verdicts, review.resolve(answers))
    assert found.right_flags is not None and found.right_flags.low == found.right_flags.high == 45 / 60
    assert found.audited > 60, "the flagged ones take their places in the sample"
    only = statement(made.verdicts, review.resolve(answers_on(made, audited[:1] + flagged, wrong=is_wrong)))
    assert found.at_most is not None and (only.at_most is None or found.at_most < only.at_most)


def test_the_audit_queue_of_a_review_deals_the_sample_that_is_counted(made: SmallRun) -> None:
    """One card in five, in the order of the design, whatever is answered between."""
    queue, answers = ReviewQueue(made.verdicts, made.images.contents), []
    for number in range(50):
        spec = Spec(queue="audit") if number % 5 == 4 else Spec()
        (row,) = queue.take(spec, client="a", reviewer="ann", count=1)
        answers += answers_on(made, [int(row)], wrong=is_wrong, mode="audit" if spec.queue == "audit" else "review")
        queue.add(answers[-1:])
    found = statement(made.verdicts, review.resolve(answers), contents=made.images.contents)
    assert 10 < found.audited < 50 == found.answered, "ten audited ones, and those that were known before their turn"
    left = truly_wrong(made) - found.found
    assert found.left is not None and found.left.low <= left <= found.left.high


def test_a_review_alone_guarantees_nothing_but_what_is_known_as_a_whole(made: SmallRun) -> None:
    answers = answers_on(made, range(60), wrong=is_wrong, mode="review")
    found = statement(made.verdicts, review.resolve(answers))
    assert (found.audited, found.at_most, found.left, found.missed) == (0, None, None, None)
    assert found.right_flags == (45 / 60, 45 / 60, 45 / 60)
    assert found.sentences[0].text == "Nothing was audited, so nothing is guaranteed."


def test_undecided_answers_widen_and_skips_of_an_audit_do_too(made: SmallRun) -> None:
    order = design(made.verdicts).order[:90]
    decided, open_rows = order[:80], order[80:]
    plain = statement(made.verdicts, review.resolve(answers_on(made, order, wrong=is_wrong)))
    for kind in ("unsure", "skip"):
        answers = answers_on(made, decided, wrong=is_wrong) + answers_on(made, open_rows, wrong=is_wrong, kind=kind)
        found = statement(made.verdicts, review.resolve(answers))
        assert (found.audited, found.unsure) == (90, 10)
        assert found.left is not None and plain.left is not None
        assert found.left.high - found.left.low > plain.left.high - plain.left.low
        assert "10 of which were left undecided" in " ".join(each.text for each in found.sentences)


def test_copies_share_an_answer_each_with_its_own_label(made: SmallRun) -> None:
    contents = made.images.contents.copy()
    contents[[61, 62]] = contents[60]  # given labels 0, 1 and 2
    (answer,) = answers_on(made, [60], wrong=lambda row: False)
    known = known_labels(made.verdicts, review.resolve([answer]), contents=contents)
    assert np.flatnonzero(known.is_decided).tolist() == [60, 61, 62]
    assert np.flatnonzero(known.is_wrong).tolist() == [61, 62]
    only_wrong = answers_on(made, [60], wrong=is_wrong, kind="wrong")
    known = known_labels(made.verdicts, review.resolve(only_wrong), contents=contents)
    assert np.flatnonzero(known.is_wrong).tolist() == [60] == np.flatnonzero(known.is_decided).tolist()


def test_more_images_to_look_at_for_a_bound_are_enough(made: SmallRun) -> None:
    order = design(made.verdicts).order
    audited = [row for row in order if row >= 60]
    answers = answers_on(made, range(60), wrong=is_wrong, mode="review") + answers_on(
        made, audited[:30], wrong=is_wrong
    )
    found = statement(made.verdicts, review.resolve(answers), at_most=0.05)
    assert found.wanted is not None and found.wanted.labels == 11 and found.wanted.more
    assert found.at_most is not None and found.at_most > 11
    looks = 30 + found.wanted.more
    more = answers_on(made, range(60), wrong=is_wrong, mode="review") + answers_on(
        made, audited[:looks], wrong=lambda row: is_wrong(row) and row in audited[:30]
    )
    after = statement(made.verdicts, review.resolve(more), at_most=0.05)
    assert after.at_most is not None and after.at_most <= 11 and after.wanted is not None and after.wanted.more == 0
    assert "as asked" in " ".join(each.text for each in after.sentences)
    before = statement(made.verdicts, review.resolve([]), at_most=0.05)
    assert before.wanted is not None and before.wanted.more is None


def test_without_an_audit_there_is_the_estimate_of_the_model_called_so(made: SmallRun) -> None:
    ends = {"wrong_labels": {"value": 60.0, "low": 45.0, "high": 90.0}}
    verdicts = Verdicts(
        table=made.verdicts.table,
        class_names=made.verdicts.class_names,
        record={**made.verdicts.record, "estimate": ends},
    )
    found = statement(verdicts, review.resolve(answers_on(made, range(20), wrong=is_wrong, mode="review")))
    rest = float((1 - verdicts.label_quality[20:239].astype(np.float64)).sum())
    assert found.estimate is not None and found.estimate.value == pytest.approx(rest)
    assert (found.estimate.low, found.estimate.high) == (max(45.0 - found.found, 0.0), 90.0 - found.found)
    assert (
        "the model's own estimate" in found.sentences[-1].text
        and "nothing guarantees" in found.sentences[-1].assumption
    )


def test_audited_images_wait_for_the_one_that_was_drawn_before_them(made: SmallRun) -> None:
    order = design(made.verdicts).order
    late = statement(made.verdicts, review.resolve(answers_on(made, order[1:41], wrong=is_wrong)))
    assert (late.audited, late.waiting, late.to_record()["waiting"]) == (0, 40, 40)
    assert late.sentences[0].text.startswith("40 audited images do not count yet: an image that was drawn before")
    some = statement(made.verdicts, review.resolve(answers_on(made, [*order[:30], order[31]], wrong=is_wrong)))
    assert (some.audited, some.waiting) == (30, 1)
    assert any(each.text.startswith("1 audited image does not count yet") for each in some.sentences)
    whole = statement(made.verdicts, review.resolve(answers_on(made, order[:31], wrong=is_wrong)))
    assert whole.waiting == 0 and not any("not count yet" in each.text for each in whole.sentences)


def test_flags_with_a_wanted_share_of_false_ones(made: SmallRun) -> None:
    reviews = review.resolve(answers_on(made, design(made.verdicts).order[:200], wrong=is_wrong))
    again = with_false_flags(made.verdicts, reviews, false_flags=0.3)
    threshold = again.record["threshold"]
    assert again.is_issue.tolist() == (again.label_quality <= np.float32(threshold)).tolist()
    assert again.is_issue.sum() > 0 and again.record["false_flags"] == 0.3
    assert sorted(again.table["rank"].drop_null().to_pylist()) == list(range(1, 240))
    few = review.resolve(answers_on(made, design(made.verdicts).order[:6], wrong=is_wrong))
    with pytest.raises(RunError, match=r"takes [\d,]+ at least; audit more images"):
        with_false_flags(made.verdicts, few, false_flags=0.01)


def test_a_p_clean_that_tells_nothing_cannot_flag_whatever_the_size_of_the_audit(made: SmallRun) -> None:
    order = design(made.verdicts).order
    for looks, said in ((200, "too many right labels have a p_clean as low"), (239, "all of them are known")):
        reviews = review.resolve(answers_on(made, order[:looks], wrong=lambda row: row % 2 == 1))
        with pytest.raises(RunError, match=said):
            with_false_flags(made.verdicts, reviews, false_flags=0.1)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("confidence", value) for value in (1.0, 0.2, float("nan"))),
        *(("at_most", value) for value in (2.0, 0)),
        ("false_flags", 0.0),
    ],
)
def test_numbers_out_of_their_range_are_refused(made: SmallRun, setting: str, value: float) -> None:
    with pytest.raises(SettingsError, match=setting):
        statement(made.verdicts, review.resolve([]), **{setting: value})  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def audited(tmp_path: Path) -> SmallRun:
    made = small_run(tmp_path, images=240, flagged=60)
    log = AnswerLog(made.folder)
    for answer in answers_on(made, design(made.verdicts).order[:90], wrong=is_wrong):
        log.append_all([answer])
    return made


def test_audit_prints_each_sentence_with_its_assumption_and_writes_the_numbers(audited: SmallRun, run: Run) -> None:
    code, out, err = run("audit", str(audited.folder), "--at-most", "1%", "--false-flags", "30%")
    assert (code, err) == (0, "")
    words = " ".join(out.split())
    found = json.loads((audited.folder / "audit.json").read_text(encoding="utf-8"))
    assert (
        f"at most {found['at_most']:,} of 239 labels" in words and "if the audited images were drawn at random" in words
    )
    assert f"look at {found['wanted']['more']} more images of the audit" in words
    assert found["confidence"] == 0.95 and found["left"]["high"] >= found["at_most"]
    assert [each["text"] for each in found["sentences"]]
    _, other, _ = run("audit", str(audited.folder), "--confidence", "0.99")
    assert "With 99 % confidence" in " ".join(other.split())


def test_a_new_scan_in_the_folder_removes_the_numbers_of_the_old_one(audited: SmallRun, run: Run) -> None:
    run("audit", str(audited.folder))
    assert (audited.folder / "audit.json").is_file()
    audited.verdicts.save(audited.folder)
    assert not (audited.folder / "audit.json").exists() and (audited.folder / "reviews.jsonl").is_file()


def test_the_report_and_the_export_have_it_too(audited: SmallRun, run: Run, tmp_path: Path) -> None:
    code, _, err = run("report", str(audited.folder))
    page = (audited.folder / "report.html").read_text(encoding="utf-8")
    assert (code, err) == (0, "") and "confidence at most" in page and "the answers are right" in page
    out = tmp_path / "again.parquet"
    words = ("--format", "parquet", "--out", str(out), "--false-flags", "40%")
    assert run("export", str(audited.folder), *words)[0] == 0
    assert pq.read_table(out).num_rows == 240


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--confidence", "95"), "--confidence from 0.5 to below 1, got 95.0; a share, such as 0.95 for 95 %"),
        (("--confidence", "high"), "expected --confidence as a share such as 95% or 0.95, got high"),
        (("--confidence", "100%"), "expected --confidence from 0.5 to below 1"),
        (
            ("--at-most", "0"),
            "--at-most above 0 and at most 1, got 0.0; a share, such as 0.1 for 10 %; that no label is wrong",
        ),
        (("--at-most", "5"), "expected --at-most above 0 and at most 1, got 5.0; a share, such as 0.1 for 10 %"),
        (("--at-most", "some"), "expected --at-most as a share such as 10% or 0.1, got some"),
        (("--false-flags", "0%"), "expected --false-flags above 0 and below 1"),
    ],
)
def test_a_bad_share_is_one_line(audited: SmallRun, run: Run, words: tuple[str, ...], said: str) -> None:
    code, _, err = run("audit", str(audited.folder), *words)
    assert code in (1, 2) and said in err and err.count("\n") == 1
    assert not (audited.folder / "audit.json").exists()


def test_no_answers_and_answers_on_other_images(audited: SmallRun, run: Run, tmp_path: Path) -> None:
    other = small_run(tmp_path / "other", images=30, flagged=6)
    code, out, err = run("audit", str(other.folder))
    assert (code, err) == (0, "") and "Nothing was audited" in out and "labelsieve review" in out
    stranger = Answer(
        token="x", key="00000000000000ff", id="gone", given_label="cat", kind="none", reviewer="ann",
        time="2026-11-28T10:00:00+00:00", mode="audit",
    )  # fmt: skip
    AnswerLog(other.folder).append_all([stranger])
    code, _, err = run("audit", str(other.folder))
    assert code == 1 and "answers on other images only" in err and err.count("\n") == 1


def test_moved_images_leave_the_ids_to_go_by(audited: SmallRun, run: Run) -> None:
    _, before, _ = run("audit", str(audited.folder))
    (audited.folder.parent / "images.parquet").rename(audited.folder.parent / "moved.parquet")
    code, out, err = run("audit", str(audited.folder))
    assert code == 0 and "answers are matched by the ids" in " ".join((out + err).split())
    assert before.splitlines()[0] in out
    code, out, err = run("audit", str(audited.folder), "--source", str(audited.folder.parent / "moved.parquet"))
    assert code == 0 and "matched by the ids" not in out + err


def test_a_folder_that_cannot_be_written_to_loses_nothing(
    audited: SmallRun, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, value: object) -> None:
        raise RunError(f"could not write {path}: Read-only file system")

    monkeypatch.setattr("labelsieve.commands.audit.write_json", refuse)
    code, out, err = run("audit", str(audited.folder))
    assert code == 0 and "confidence at most" in " ".join(out.split()) and "note: could not write" in out + err


def test_without_a_flag_there_is_the_bound_on_wrong_labels_alone(tmp_path: Path) -> None:
    made = small_run(tmp_path, images=40, flagged=0)
    order = design(made.verdicts).order
    for looks in (20, len(order)):
        answers = answers_on(made, order[:looks], wrong=lambda row: row == order[0])
        found = statement(made.verdicts, review.resolve(answers), at_most=0.5)
        assert (found.flagged, found.right_flags, found.missed) == (0, None, None)
        said = [each.text for each in found.sentences]
        assert ("still wrong" in said[0]) and not any("miss" in each for each in said)
        assert "Nothing was flagged, so there is nothing to say of flags." in said
        assert found.at_most is not None and (found.at_most == 0) == (looks == len(order))
