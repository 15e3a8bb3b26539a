"""The log of answers: what was acknowledged is there after any crash, once."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from labelsieve.core.errors import DataError, RunError
from labelsieve.review import LOG, Answer, AnswerLog, key_of
from small_log import answer, heard


def appended(folder: Path, count: int = 3) -> list[Answer]:
    answers = [answer(token, key=token) for token in range(count)]
    for each in answers:
        assert AnswerLog(folder).append_all([each])
    return answers


def test_what_was_appended_is_read_again_in_its_order(tmp_path: Path) -> None:
    notes = answer("n", kind="several", labels=("käse", "\U0001f600"), note="a\nb\u2028c", seconds=1.5, mode="audit")
    answers = [*appended(tmp_path), notes]
    AnswerLog(tmp_path).append_all([notes])
    assert AnswerLog(tmp_path).answers() == answers
    header, *lines = (tmp_path / LOG).read_text(encoding="utf-8").split("\n")
    assert json.loads(header)["format"] == 1 and len(lines) == 5 and lines[-1] == ""


def test_there_are_no_answers_without_a_log(tmp_path: Path) -> None:
    assert AnswerLog(tmp_path).answers() == []
    assert AnswerLog(tmp_path / "nowhere").answers() == []
    assert list(tmp_path.iterdir()) == []


def test_the_same_token_is_appended_once(tmp_path: Path) -> None:
    one, other = AnswerLog(tmp_path), AnswerLog(tmp_path)
    assert (
        one.append_all([answer(1)])
        and not one.append_all([answer(1)])
        and not other.append_all([answer(1, kind="none")])
    )
    assert AnswerLog(tmp_path).answers() == [answer(1)]


def test_a_log_is_prepared_without_an_answer(tmp_path: Path) -> None:
    for _ in range(2):
        AnswerLog(tmp_path).prepare()
    assert (tmp_path / LOG).read_bytes().count(b"\n") == 1 and AnswerLog(tmp_path).answers() == []
    with pytest.raises(RunError, match="could not be written"):
        AnswerLog(tmp_path / "nowhere").prepare()


def test_a_group_is_appended_as_a_whole(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path)
    log.append_all([answer(2)])
    assert log.append_all([answer(1), answer(2), answer(3), answer(3)]) == 2
    assert [each.token for each in AnswerLog(tmp_path).answers()] == ["2", "1", "3"]


def test_a_log_follows_what_others_append(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path)
    assert log.follow() == []
    AnswerLog(tmp_path).append_all([answer(1)])
    assert [each.token for each in log.follow()] == ["1"]
    assert log.follow() == []
    log.append_all([answer(2)])
    assert [each.token for each in log.answers()] == ["1", "2"]
    assert [each.token for each in log.follow()] == ["2"], "its own answers are among them"


@pytest.mark.parametrize("torn", [b'{"token": "9", "ke', b"\0" * 100, b'{"token": "9", "ke\n', b"\xff\xfe"])
def test_a_torn_last_line_is_dropped_with_a_note_and_cut_off_before_the_next(tmp_path: Path, torn: bytes) -> None:
    answers = appended(tmp_path)
    whole = (tmp_path / LOG).read_bytes()
    (tmp_path / LOG).write_bytes(whole + torn)
    progress, said = heard()
    log = AnswerLog(tmp_path, progress=progress)
    assert log.answers() == answers == log.answers()
    assert said.getvalue().count("is torn") == 1 and (tmp_path / LOG).read_bytes() == whole + torn
    assert log.append_all([answer("next")])
    assert (tmp_path / LOG).read_bytes() == whole + answer("next").to_line().encode() + b"\n"


def test_a_torn_header_is_written_again(tmp_path: Path) -> None:
    (tmp_path / LOG).write_bytes(b'{"form')
    assert AnswerLog(tmp_path).answers() == []
    AnswerLog(tmp_path).append_all([answer(1)])
    assert AnswerLog(tmp_path).answers() == [answer(1)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{broken", r'expected an answer in line 3 of .*found "\{broken"'),
        ("", "expected an answer in line 3 of .*found an empty line"),
        ("[1]", "expected an answer in line 3"),
        ("{}", 'expected "token" in an answer, found none .line 3 of'),
        ('{"token": "\\ud800"}', "line 3 of"),
        (answer(9).to_line().replace('"label"', '"lable"'), r"one of label, .*got lable \(line 3"),
    ],
)
def test_a_broken_line_elsewhere_is_named(tmp_path: Path, line: str, said: str) -> None:
    appended(tmp_path)
    lines = (tmp_path / LOG).read_text(encoding="utf-8").split("\n")
    (tmp_path / LOG).write_text("\n".join([*lines[:2], line, *lines[2:]]), encoding="utf-8")
    with pytest.raises(RunError, match=said) as error:
        AnswerLog(tmp_path).answers()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("header", ['{"format": 2, "labelsieve": "9.0"}', '{"other": 1}', "[]"])
def test_a_log_of_another_format_is_refused(tmp_path: Path, header: str) -> None:
    (tmp_path / LOG).write_text(f"{header}\n{answer(1).to_line()}\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"expected (format 1|an answer in line 1)"):
        AnswerLog(tmp_path).append_all([answer(2)])


def test_keys_of_later_versions_are_passed_over(tmp_path: Path) -> None:
    appended(tmp_path, 1)
    later = {**json.loads(answer("2").to_line()), "mood": "good"}
    with (tmp_path / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(later) + "\n")
    assert AnswerLog(tmp_path).answers()[1] == answer("2")


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, answers = AnswerLog(tmp_path), appended(tmp_path)

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"could not be written in .*No space left.*free some space"):
            log.append_all([answer("lost")])
    assert AnswerLog(tmp_path).answers() == answers == log.answers()
    assert log.append_all([answer("lost")]) and len(AnswerLog(tmp_path).answers()) == 4


@pytest.mark.parametrize("place", ["folder", "missing"])
def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path, place: str) -> None:
    if place == "folder":
        (tmp_path / LOG).mkdir()
    with pytest.raises(RunError, match=LOG.replace(".", "[.]")):
        AnswerLog(tmp_path if place == "folder" else tmp_path / "nowhere").append_all([answer(1)])


def test_a_log_that_became_shorter_is_not_written_to(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path)
    log.append_all([answer(1)])
    (tmp_path / LOG).write_bytes((tmp_path / LOG).read_bytes()[:20])
    with pytest.raises(RunError, match="became shorter"):
        log.append_all([answer(2)])


WRONG_ANSWERS: list[tuple[dict[str, Any], str]] = [
    ({"kind": "maybe"}, 'expected "kind" of an answer to be one of label, several'),
    ({"mode": "blind"}, 'expected "mode" of an answer to be one of review, audit'),
    ({"kind": "label", "labels": ()}, "expected one label .* got 0"),
    ({"kind": "label", "labels": ("a", "b")}, "expected one label .* got 2"),
    ({"kind": "several", "labels": ("a",)}, "expected two labels or more"),
    ({"kind": "several", "labels": ("a", "a")}, "different"),
    ({"kind": "none", "labels": ("a",)}, "expected no labels"),
    ({"kind": "undo"}, "undoes"),
    ({"undoes": "1"}, "undoes"),
    ({"reviewer": " "}, 'expected a "reviewer"'),
    ({"reviewer": "x" * 201}, "at most 200 characters"),
    ({"note": "x" * 10_001}, "at most 10,000 characters"),
    ({"seconds": float("nan")}, "a number from 0"),
    ({"seconds": -1}, "a number from 0"),
    ({"time": "noon"}, 'expected "time"'),
    ({"id": "\ud800"}, 'expected "id" of an answer to be a text'),
    ({"shown": [1]}, "to be an object"),
]


def test_an_answer_that_makes_no_sense_is_refused(subtests: pytest.Subtests) -> None:
    for changes, said in WRONG_ANSWERS:
        with subtests.test(changes=changes), pytest.raises(DataError, match=said):
            answer(**changes)


def test_a_key_is_16_hexadecimal_digits() -> None:
    assert key_of(2**64 - 1) == "f" * 16
    with pytest.raises(DataError, match="16 hexadecimal digits"):
        Answer.from_mapping({**json.loads(answer().to_line()), "key": "12"})


_WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from small_log import answer
from labelsieve.review import AnswerLog
log = AnswerLog(Path({folder!r}))
for number in range({count}):
    log.append_all([answer(f"{name}-{{number}}", key=number, note="x" * 300)])
    print(f"{name}-{{number}}", flush=True)
"""


def writer(folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    code = _WRITER.format(tests=str(Path(__file__).parents[2] / "fixtures"), folder=str(folder), name=name, count=count)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_several_processes_append_at_once(tmp_path: Path) -> None:
    writers = [writer(tmp_path, name, 150) for name in ("a", "b")]
    assert [each.communicate()[0].count("\n") for each in writers] == [150, 150]
    tokens = [each.token for each in AnswerLog(tmp_path).answers()]
    assert len(tokens) == len(set(tokens)) == 300
    for name in ("a", "b"):
        assert [each for each in tokens if each[0] == name] == [f"{name}-{number}" for number in range(150)]


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    process = writer(tmp_path, "a", 100_000)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(50)]
    time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += process.communicate()[0].split("\n")[:-1]
    tokens = [each.token for each in AnswerLog(tmp_path).answers()]
    assert tokens[: len(acknowledged)] == acknowledged
    assert len(tokens) - len(acknowledged) in (0, 1)  # on the disk, and not said any more
