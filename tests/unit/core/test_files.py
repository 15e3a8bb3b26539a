"""Writing that succeeds whole or leaves no trace."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import labelsieve as ls
from labelsieve.core.errors import DataError, ModelError, RunError
from labelsieve.core.files import read_json, write_atomically, write_json, write_text
from labelsieve.core.output_folders import make_folder


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


@pytest.mark.parametrize(
    ("load", "error"),
    [(ls.load_images, DataError), (ls.load_features, DataError), (ls.load_tags, DataError), (ls.load_vlm, ModelError)]
    + [(kind.load, RunError) for kind in (ls.Verdicts, ls.TagVerdicts)],
)
def test_a_path_that_cannot_be_looked_at(load: Callable[[str], Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^a+\.\.\.\S* cannot be read: File name too long; check the path$"):
        load("a" * 300)
    with pytest.raises(RunError, match=r"could not make the folder .*File name too long; choose a writable place"):
        make_folder(Path("a" * 300))


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
