"""What may be replaced or removed, and who may write where: files, folders, locks, and what killed processes leave."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest

from labelsieve.core.errors import RunError
from labelsieve.core.files import remove, write_atomically, write_text
from labelsieve.core.locks import locked
from labelsieve.core.output_folders import exclusive_folder, new_folder, next_runs, paths_fingerprint

fcntl = pytest.importorskip("fcntl", reason="Windows has no such locks")


# ---------------------------------------------------------------- what is no regular file


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))  # a node of its own, never that of the system
    except PermissionError:
        pytest.skip("only root may make devices")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # such names are short


def _circle(path: Path) -> None:
    path.symlink_to(path.name)


NODES: dict[str, Callable[[Path], None]] = {
    "a device": _device,
    "a pipe": os.mkfifo,
    "a socket": _socket,
    "a folder": Path.mkdir,
}


def node(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return stat.S_IFMT(found.st_mode), found.st_ino


@pytest.fixture(
    params=[*NODES.items(), ("a symbolic link that leads in a circle", _circle)], ids=lambda param: param[0]
)
def special(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """What a path is, and the path."""
    kind, make = request.param
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "node")
    return kind, tmp_path / "node"


@pytest.mark.parametrize("act", [lambda path: write_text(path, "new"), remove], ids=["write", "remove"])
def test_only_regular_files_are_replaced(special: tuple[str, Path], act: Callable[[Path], None]) -> None:
    kind, path = special
    before = node(path)
    with pytest.raises(
        RunError, match=f"could not write .*node: it is {kind}, and only a regular file is ever replaced"
    ):
        act(path)
    assert node(path) == before and os.listdir(path.parent) == ["node"]


@pytest.mark.parametrize("kind", NODES)
def test_a_link_to_something_else_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    NODES[kind](tmp_path / "node")
    (tmp_path / "link").symlink_to("node")
    before = node(tmp_path / "node")
    with pytest.raises(RunError, match=f"link leads to {kind}, and only"):
        write_text(tmp_path / "link", "new")
    assert node(tmp_path / "node") == before and (tmp_path / "link").is_symlink()


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far/file")  # to nothing yet
    for text in ("first", "second"):
        write_text(tmp_path / "link", text)
        assert (tmp_path / "far" / "file").read_text() == text and (tmp_path / "link").is_symlink()
    assert os.listdir(tmp_path / "far") == ["file"]
    remove(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and os.listdir(tmp_path / "far") == []
    remove(tmp_path / "link")


def test_a_folder_takes_the_place_of_folders_only(special: tuple[str, Path]) -> None:
    kind, path = special
    if kind == "a folder":
        return
    before = node(path)
    with pytest.raises(RunError, match=r"expected a folder to replace, .*node is none"), new_folder(path):
        pass
    with pytest.raises(RunError, match=r"expected out to be a folder, .*node is no folder"), exclusive_folder(path):
        pass
    assert node(path) == before and os.listdir(path.parent) == ["node"]


# ---------------------------------------------------------------- what killed processes leave


@contextmanager
def process(code: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """Runs a program that says a line when it has come to its point, and then waits."""
    lines = ["import os, sys, time", "from pathlib import Path", "from labelsieve.core.output_folders import *"]
    lines += ["from labelsieve.core.files import *", code]
    command = [sys.executable, "-c", "\n".join(lines), *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stdout.readline()
        yield running
        running.kill()


WRITES = """
with write_atomically(Path(sys.argv[1])) as part:
    part.write_text("half")
    print(part, flush=True)
    sys.stdin.read()
"""
WRITES_FOLDER = """
with new_folder(Path(sys.argv[1])) as part:
    (part / "half").write_text("half")
    print(part, flush=True)
    sys.stdin.read()
"""
HAS = """
with exclusive_folder(Path(sys.argv[1])):
    # The child speaks: until it runs, it shares the lock of its parent.
    if not os.fork():
        print("there", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_wrote_is_removed_by_the_next_one(tmp_path: Path) -> None:
    foreign = [".x.part", ".x.0123.part", ".x.csv.0123abcd.part", ".y.0123abcd.part", "x.0123abcd.part"]
    for name in foreign:
        (tmp_path / name).touch()
    with process(WRITES, tmp_path / "x") as killed:
        assert len(list(tmp_path.iterdir())) == len(foreign) + 1
        write_text(tmp_path / "x", "live")
        assert len(list(tmp_path.iterdir())) == len(foreign) + 2, "it is alive, and still writes"
        killed.kill()
        killed.wait()
        write_text(tmp_path / "x", "new")
    assert sorted(os.listdir(tmp_path)) == sorted(["x", *foreign]) and (tmp_path / "x").read_text() == "new"


def test_a_folder_that_a_killed_process_wrote_is_removed_by_the_next_one(tmp_path: Path) -> None:
    with process(WRITES_FOLDER, tmp_path / "x") as killed:
        with (
            pytest.raises(RunError, match=r"another process is writing .*x; wait for it"),
            new_folder(tmp_path / "x"),
        ):
            pass
        killed.kill()
        killed.wait()
        with new_folder(tmp_path / "x") as part:
            (part / "whole").touch()
    assert os.listdir(tmp_path) == ["x"] and os.listdir(tmp_path / "x") == ["whole"]


def test_what_stood_there_comes_back_after_a_kill_between_two_renames(tmp_path: Path) -> None:
    (tmp_path / ".x.0123abcd.old").mkdir()
    (tmp_path / ".x.0123abcd.old" / "before").touch()

    def fails() -> None:
        with new_folder(tmp_path / "x"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert os.listdir(tmp_path) == ["x"] and os.listdir(tmp_path / "x") == ["before"]


# ---------------------------------------------------------------- one process at a time


def test_a_folder_is_for_one_process_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with process(HAS, out) as other:
        with (
            pytest.raises(RunError, match=r"another process is writing to .*run; wait for it, or choose"),
            exclusive_folder(out),
        ):
            pass
        assert out.is_dir(), "it is the other's"
        other.send_signal(signal.SIGKILL)  # its child lives on, as one that decodes images may for a moment
        other.wait()
        with exclusive_folder(out), exclusive_folder(out):
            assert os.listdir(out) == []
    with exclusive_folder(out), pytest.raises(BlockingIOError), locked(out):
        pass


def test_an_empty_folder_of_a_block_that_failed_is_removed(tmp_path: Path) -> None:
    def fails(folder: Path, *, leaves: bool) -> None:
        with exclusive_folder(folder):
            if leaves:
                (folder / "checkpoint").mkdir()
            raise ZeroDivisionError

    (tmp_path / "old").mkdir()
    for name, leaves in (("old", False), ("new", False), ("begun", True)):
        with pytest.raises(ZeroDivisionError):
            fails(tmp_path / name, leaves=leaves)
    assert sorted(os.listdir(tmp_path)) == ["begun", "old"]


def test_a_listing_tells_files_by_their_paths(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    first = paths_fingerprint(tmp_path)
    for name in (".hidden", "Thumbs.db", "a/.DS_Store"):
        (tmp_path / name).touch()
    assert paths_fingerprint(tmp_path) == first
    (tmp_path / "a" / "2.png").touch()
    second = paths_fingerprint(tmp_path)
    (tmp_path / "a" / "1.png").rename(tmp_path / "1.png")
    assert len({first, second, paths_fingerprint(tmp_path)}) == 3


def test_a_disk_without_locks_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".x.0123abcd.part").touch()
    with exclusive_folder(tmp_path), write_atomically(tmp_path / "x") as part:
        part.write_text("new")
    assert sorted(os.listdir(tmp_path)) == [".x.0123abcd.part", "x"], "nothing tells whether somebody writes it"


def test_a_folder_that_may_not_be_written_to_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelsieve.core.output_folders.os.access", lambda _path, mode: mode != os.W_OK)
    with pytest.raises(RunError, match="may not be written to; choose a writable place"), exclusive_folder(tmp_path):
        pytest.fail("before anything is computed")


def test_the_next_runs_lie_beside_the_run_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "photos"
    run.mkdir()
    monkeypatch.chdir(run)
    for named in (run, Path(".")):
        assert [path.name for path in islice(next_runs(named), 3)] == [
            "photos-again",
            "photos-again-2",
            "photos-again-3",
        ]
    assert next(next_runs(tmp_path / "photos-again-2")).name == "photos-again"
