"""Fingerprints, JSON that is always the same, and writing that succeeds whole or leaves no trace."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelsieve.core.errors import RunError
from labelsieve.core.files import read_json, write_atomically, write_json, write_text
from labelsieve.core.provenance import fingerprint, to_json, versions


@dataclass(frozen=True, kw_only=True)
class Settings:
    epochs: int = 10
    folder: Path = Path("runs")
    shape: tuple[int, ...] = (2, 3)


# --- fingerprints


def test_a_fingerprint_stays_the_same_for_ever() -> None:
    # runs of earlier versions are recognised by these: a change here makes all of them useless
    assert fingerprint() == "e4a6a0577479b2b4"
    by_hand = hashlib.blake2b(
        b'json 5\n"cat"'
        b"json 1\n1"
        b"bytes 1\nx"
        b"array <i8 (3,) 24\n\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0"
        b'json 25\n{\n  "a": null,\n  "b": 1\n}',
        digest_size=8,
    ).hexdigest()
    assert by_hand == "e312710893f7ede0"  # `b2sum -l 64` gives it too
    assert fingerprint("cat", 1, b"x", np.arange(3, dtype=np.int64), {"b": 1, "a": None}) == by_hand


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (("a", "b"), ["a", "b"]),
        (Path("a/b"), "a/b"),
        (Settings(), {"epochs": 10, "folder": "runs", "shape": [2, 3]}),
        (np.arange(6).reshape(2, 3).T, np.ascontiguousarray(np.arange(6).reshape(2, 3).T)),
        (np.arange(10)[::2], np.array([0, 2, 4, 6, 8])),
    ],
)
def test_equal_things_have_equal_fingerprints(one: Any, other: Any) -> None:
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        (("a",), ("a", "")),
        (("a", "b"), ("b", "a")),
        ((["a", "b"],), ("a", "b")),
        (("1",), (1,)),
        ((1,), (1.0,)),
        ((1,), (True,)),
        ((None,), ("null",)),
        ((b'"a"',), ("a",)),
        ((np.array([1, 2], np.int64),), (np.array([1, 2], np.int32),)),
        ((np.array([1, 2], np.int64),), ([1, 2],)),
        ((np.zeros((2, 3)),), (np.zeros((3, 2)),)),
        ((np.zeros(2), np.zeros(3)), (np.zeros(3), np.zeros(2))),
        ((np.array([0.0, 1.0]),), (np.array([0.0, 1.0 + 1e-15]),)),
        ((Settings(),), (Settings(epochs=11),)),
    ],
)
def test_different_things_have_different_fingerprints(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert fingerprint(*one) != fingerprint(*other)


@given(st.lists(st.binary(max_size=8), max_size=4), st.lists(st.binary(max_size=8), max_size=4))
def test_where_one_part_ends_and_the_next_begins_counts(one: list[bytes], other: list[bytes]) -> None:
    assert (fingerprint(*one) == fingerprint(*other)) == (one == other)


def test_what_cannot_be_fingerprinted_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot write object"):
        fingerprint(object())


# --- JSON

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(plain)
def test_json_reads_back_as_written(value: Any) -> None:
    assert json.loads(to_json(value)) == value


@given(st.dictionaries(st.text(max_size=3), plain, max_size=5), st.randoms())
def test_json_does_not_depend_on_the_order_of_keys(value: dict[str, Any], random: Any) -> None:
    keys = list(value)
    random.shuffle(keys)
    assert to_json({key: value[key] for key in keys}) == to_json(value)


def test_json_of_numpy_dataclasses_and_paths() -> None:
    value = {"n": np.int64(1), "share": np.float32(0.5), "flag": np.bool_(True), "rows": np.arange(2), "s": Settings()}
    expected = {
        "n": 1,
        "share": 0.5,
        "flag": True,
        "rows": [0, 1],
        "s": {"epochs": 10, "folder": "runs", "shape": [2, 3]},
    }
    assert json.loads(to_json(value)) == expected


def test_json_keeps_letters_readable() -> None:
    assert "猫" in to_json({"name": "猫"})


def test_json_is_the_same_in_every_process() -> None:
    value = "{'b': [1, 2.5], 'a': {'y': 1, 'x': None}, 'c': {'cat', 'dog', 'fox', 'owl'}}"
    code = f"from labelsieve.core.provenance import to_json; print(to_json({value}))"
    texts = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_json_of_equal_sets_is_equal() -> None:
    assert to_json({0, 8}) == to_json({8, 0})
    assert to_json(frozenset({0, 8})) == to_json([0, 8])


def test_json_of_sets_of_mixed_types() -> None:
    mixed = {"b", 1, None, False, 2.5, ("a", 1), frozenset({3, "c"}), Path("a")}
    read = json.loads(to_json(mixed))
    assert len(read) == len(mixed) and ["a", 1] in read and ["c", 3] in read
    with pytest.raises(TypeError, match="cannot write object"):
        to_json({object()})


@pytest.mark.parametrize("value", [object(), {"a": b"bytes"}, Settings])
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot write"):
        to_json(value)


def test_versions_are_those_installed() -> None:
    found = versions()
    assert found["numpy"] == np.__version__
    assert found["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert all(isinstance(version, str) for version in found.values())


# --- writing


def test_writing_makes_folders_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b" / "x.json", {"k": [1]})
    assert read_json(tmp_path / "a" / "b" / "x.json") == {"k": [1]}
    assert os.listdir(tmp_path / "a" / "b") == ["x.json"]


def test_text_is_written_as_utf8_with_a_newline_as_given(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "猫\n")
    assert (tmp_path / "x").read_bytes() == "猫\n".encode()


def test_the_new_file_is_not_seen_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with write_atomically(path) as part:
        part.write_text("new")
        assert path.read_text() == "old" and part.parent == path.parent
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_leaves_the_old_file(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")

    def interrupted() -> None:
        with write_atomically(path) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x"]


def _full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (Path, "replace"), (Path, "write_text")])
def test_a_full_disk_leaves_the_old_file(
    owner: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    write_text(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, _full)
        with pytest.raises(RunError, match="No space left on device; free some space") as caught:
            write_text(path, "new")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x"]


def test_what_another_library_says_of_the_temporary_file_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught, write_atomically(tmp_path / "x") as part:
        raise OSError(errno.EROFS, f"Failed to open local file '{part}'. Detail: [errno 30]")
    assert str(caught.value).startswith(f"could not write {tmp_path / 'x'}: {os.strerror(errno.EROFS)}; free some")


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="could not write"), write_atomically(tmp_path / "x"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not UTF-8; choose another name"):
        write_text(tmp_path / "caf\udce9", "text")
    assert not list(tmp_path.iterdir())


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a file")
    with pytest.raises(RunError, match="choose a writable folder"):
        write_text(tmp_path / "x" / "y", "text")
    assert (tmp_path / "x").read_text() == "a file"


def test_a_folder_where_a_file_should_be(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(RunError, match="could not write"):
        write_text(tmp_path / "x", "text")
    assert os.listdir(tmp_path) == ["x"]


def test_a_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_text(folder / "x", "old")
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write to read-only folders")
        with pytest.raises(RunError, match="choose a writable folder"):
            write_text(folder / "x", "new")
        assert (folder / "x").read_text() == "old"
    finally:
        folder.chmod(0o700)


def test_a_disk_that_refuses_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("write_text", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(RunError, match="Read-only file system"):
        write_text(tmp_path / "x", "new")


# --- reading


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as JSON"),
        (b'{"half": ', "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[1, 2]", "expected a JSON object in .*, found list"),
        (b"null", "expected a JSON object in .*, found NoneType"),
    ],
)
def test_what_is_not_a_json_object_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(RunError, match=message):
        read_json(tmp_path / "x.json")


def _nothing(path: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("prepare", "message"), [(_nothing, "found none; was the run finished"), (Path.mkdir, "cannot be read as JSON")]
)
def test_a_missing_file_and_a_folder_are_refused(prepare: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    prepare(tmp_path / "x.json")
    with pytest.raises(RunError, match=message):
        read_json(tmp_path / "x.json")
