"""Fingerprints, JSON that is always the same, and versions."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_different_things_have_different_fingerprints(subtests: pytest.Subtests) -> None:
    pairs: list[tuple[tuple[Any, ...], tuple[Any, ...]]] = [
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
    ]
    for one, other in pairs:
        with subtests.test(one=one, other=other):
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
