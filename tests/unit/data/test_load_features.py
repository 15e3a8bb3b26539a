"""Features computed before: what is read, what is refused in one line, and the whole way without images or model."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

import labelsieve as ls
from labelsieve.cli import main
from labelsieve.core.errors import DataError, LabelsieveError, SettingsError
from labelsieve.data.features import LabelledFeatures, load_features
from labelsieve.data.sources.feature_files import holds_features
from labelsieve.detect.registry import DETECTORS, detector_class, feature_detectors
from labelsieve.verdicts import Verdicts
from slow_cases import mostly_slow
from small_tables import write_table

NAMES = ("cat", "dog", "owl")


def blobs(count: int = 60, *, width: int = 8, seed: int = 0) -> dict[str, Any]:
    """Returns three classes about their text features, with a fifth of the labels wrong."""
    rng = np.random.default_rng(seed)
    text = np.linalg.qr(rng.normal(size=(width, width)))[0][:3]
    truth = np.arange(count) % 3
    labels = np.where(np.arange(count) % 5 == 0, (truth + 1) % 3, truth)
    features = text[truth] + 0.15 * rng.normal(size=(count, width))
    return {
        "features": features.astype(np.float32),
        "labels": np.array(NAMES)[labels],
        "truth": np.array(NAMES)[truth],
        "ids": np.array([f"photo-{row}" for row in range(count)]),
        "class_names": np.array(NAMES),
        "text": text.astype(np.float32),
        "logit_scale": np.float32(20.0),
    }


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return save(tmp_path / "features.npz", **blobs())


def parquet(to: Path, arrays: dict[str, Any], **more: Any) -> Path:
    columns = {name: arrays[name].tolist() for name in ("features", "labels", "truth")}
    pq.write_table(pa.table({**columns, "id": arrays["ids"].tolist(), **more}), to)
    return to


def one_line(call: Any, *words: str) -> str:
    with pytest.raises(LabelsieveError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message
    return message


# ---------------------------------------------------------------- what is read


def test_npz_is_read_whole(stored: Path) -> None:
    found, arrays = load_features(stored), blobs()
    assert len(found) == 60 and found.features.dtype == np.float32 and found.labels.dtype == np.int64
    assert np.array_equal(found.features, arrays["features"])
    assert found.class_names == NAMES and found.ids[:2] == ("photo-0", "photo-1")
    assert [found.class_names[k] for k in found.labels] == arrays["labels"].tolist()
    assert found.truth is not None and [NAMES[k] for k in found.truth] == arrays["truth"].tolist()
    assert found.text is not None and np.array_equal(found.text, arrays["text"]) and found.logit_scale == 20.0
    assert found.origin["source"] == str(stored)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.labels = found.labels  # type: ignore[misc]


def test_labels_of_features_are_any_series_and_nothing_else() -> None:
    features, labels = np.eye(4), ["1", "0", "1", "0"]
    for given in (labels, (name for name in labels), np.array(labels), tuple(labels)):
        assert load_features(features, labels=given).labels.tolist() == [1, 0, 1, 0]
    text = load_features(features, labels=(int(name) for name in labels), text=np.eye(4)[:2], logit_scale=100)
    assert text.labels.tolist() == [1, 0, 1, 0]
    one_line(lambda: load_features(features, labels=5), "expected 4 labels, one for each row, got 5; pass a list")
    one_line(lambda: load_features(features, labels=["a"]), "expected 4 labels, one for each row, got 1")
    one_line(lambda: load_features(features, labels=np.array(5)), "expected 4 labels, one for each row")


def test_least_of_an_npz(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npz", features=np.eye(4), labels=[0, 1, 1, 2])
    found = load_features(path)
    assert found.class_names == ("0", "1", "2") and found.ids[0] == "0000000"
    assert found.text is None and found.logit_scale is None and found.truth is None


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 8), pa.large_list(pa.float16())])
def test_parquet_is_the_same_as_npz(kind: Any, stored: Path, tmp_path: Path) -> None:
    arrays = blobs()
    if kind.value_type == pa.float16():
        arrays["features"] = arrays["features"].astype(np.float16)
    values = pa.array([list(row) for row in arrays["features"]], kind)
    path = parquet(tmp_path / "x.parquet", arrays, embedding=values)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["features"]), path, row_group_size=7)
    found = load_features(path, truth_column="truth", class_names=NAMES, text=arrays["text"], logit_scale=20)
    expected = load_features(stored)
    np.testing.assert_allclose(found.features, expected.features, atol=1e-3)
    assert found.ids == expected.ids and np.array_equal(found.labels, expected.labels)
    assert found.truth is not None and np.array_equal(found.truth, np.asarray(expected.truth))
    assert load_features(path).truth is None, "the truth of a table is read only where it is asked for"


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int64()])
def test_whole_numbers_of_a_table_are_features_too(kind: Any, tmp_path: Path) -> None:
    rows = [[1, 2], [3, 4], [5, 100]]
    pq.write_table(
        pa.table({"features": pa.array(rows, pa.list_(kind)), "label": ["a", "b", "a"]}), tmp_path / "x.parquet"
    )
    assert np.array_equal(load_features(tmp_path / "x.parquet").features, np.array(rows, dtype=np.float32))
    rows[1][0] = None  # type: ignore[call-overload]
    pq.write_table(
        pa.table({"features": pa.array(rows, pa.list_(kind)), "label": ["a", "b", "a"]}), tmp_path / "x.parquet"
    )
    one_line(lambda: load_features(tmp_path / "x.parquet"), "1 of 3 rows", "NaN")


def test_memory_and_text_of_other_files(tmp_path: Path) -> None:
    arrays = blobs()
    np.save(tmp_path / "text.npy", arrays["text"])
    save(tmp_path / "text.npz", text=arrays["text"])
    options: dict[str, Any] = {"labels": arrays["labels"], "class_names": NAMES, "logit_scale": 20.0}
    in_memory = load_features(arrays["features"], text=arrays["text"], **options)
    for name in ("text.npy", "text.npz"):
        found = load_features(arrays["features"], text=tmp_path / name, **options)
        assert found.text is not None and np.array_equal(found.text, np.asarray(in_memory.text))
        assert found.text_fingerprint == in_memory.text_fingerprint and found.origin == {}


def test_class_names_as_bytes_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "x.npz", **{**blobs(), "class_names": np.array(NAMES, dtype="S")})
    one_line(lambda: load_features(tmp_path / "x.npz"), 'texts in "class_names"', "found bytes")


def test_labels_by_number_follow_the_texts() -> None:
    arrays = blobs()
    numbers = np.array([NAMES.index(name) for name in arrays["labels"]])
    found = load_features(arrays["features"], labels=numbers, text=arrays["text"], logit_scale=1)
    assert found.class_names == ("0", "1", "2") and np.array_equal(found.labels, numbers)
    four = np.vstack([arrays["text"], np.ones((1, 8))])
    more = load_features(arrays["features"], labels=numbers, text=four, logit_scale=1)
    assert more.class_names == ("0", "1", "2", "3")


def test_a_subset_is_drawn_by_the_seed(stored: Path) -> None:
    first, again, other = (load_features(stored, limit=10, seed=seed) for seed in (1, 1, 2))
    assert len(first) == 10 and first.ids == again.ids != other.ids
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert load_features(**first.origin).fingerprint == first.fingerprint


def test_what_the_fingerprint_depends_on(stored: Path) -> None:
    found = load_features(stored)
    labels = found.labels.copy()
    labels[0] = (labels[0] + 1) % 3
    assert found.with_labels(labels).fingerprint != found.fingerprint
    assert found.take(np.arange(59)).fingerprint != found.fingerprint
    assert dataclasses.replace(found, truth=None).fingerprint == found.fingerprint
    assert found.take(np.arange(60)).fingerprint == found.fingerprint
    assert np.array_equal(np.asarray(found.with_labels(labels, truth=found.labels).truth), found.labels)
    one_line(lambda: found.with_labels(labels[:5]), "expected 60 labels", "(5,)")


def test_equal_rows_have_equal_contents() -> None:
    found = load_features(np.array([[1, 2], [1, 2], [2, 1]]), labels=["a", "b", "a"])
    assert found.contents[0] == found.contents[1] != found.contents[2]


@pytest.mark.parametrize(
    ("features", "labels"),
    [("X", "y"), ("feats", "targets"), ("emb", "label"), ("image_features", "noisy_labels"), ("arr_0", "arr_1")],
)
def test_arrays_with_usual_names(features: str, labels: str, tmp_path: Path) -> None:
    arrays = blobs()
    path = save(tmp_path / "x.npz", **{features: arrays["features"], labels: arrays["labels"]})
    found = load_features(path)
    assert np.array_equal(found.features, arrays["features"])
    assert [found.class_names[k] for k in found.labels] == arrays["labels"].tolist()
    assert f'the features are the array "{features}"' in found.notes
    one_line(lambda: load_features(save(tmp_path / "y.npz", arr_0=np.eye(3))), "holds features and no labels")
    one_line(lambda: load_features(save(tmp_path / "z.npz", X=np.eye(3), emb=np.eye(3))), 'that fit: "X", "emb"')


@pytest.mark.parametrize("shape", [(60, 1, 8), (60, 8, 1, 1), (60, 1, 1, 8)])
def test_axes_of_one_are_left_out(shape: tuple[int, ...]) -> None:
    arrays = blobs()
    found = load_features(arrays["features"].reshape(shape).astype(np.float16), labels=arrays["labels"])
    np.testing.assert_allclose(found.features, arrays["features"], atol=1e-3)
    one_line(lambda: load_features(np.zeros((2, 5, 4)), labels=[0, 1]), "(2, 5, 4)", "mean over tokens")
    one_line(lambda: load_features(np.zeros((2, 5, 5, 3)), labels=[0, 1]), "load_images(array")


def test_labels_in_one_column_or_one_hot(tmp_path: Path) -> None:
    found = load_features(save(tmp_path / "x.npz", features=np.eye(3), labels=np.array([[2], [0], [1]])))
    assert found.labels.tolist() == [2, 0, 1]
    one_hot = save(tmp_path / "y.npz", features=np.eye(3), labels=np.eye(3))
    one_line(lambda: load_features(one_hot), "got shape (3, 3)", "argmax(axis=1)")


@pytest.mark.parametrize(
    ("features", "labels"),
    [("features", "labels"), ("X_train", "y_train"), ("test-emb", "test-targets"), ("a", "labels")],
)
def test_npy_with_labels_beside_it(features: str, labels: str, tmp_path: Path) -> None:
    np.save(tmp_path / f"{features}.npy", np.eye(3))
    np.save(tmp_path / "other_labels.npy", [0, 0, 0])
    source = tmp_path / f"{features}.npy"
    assert holds_features(source)
    one_line(lambda: load_features(source), "holds features alone; save their labels beside it as ", "np.savez")
    np.save(tmp_path / f"{labels}.npy", np.array(["b", "a", "b"]))
    found = load_features(source)
    assert found.class_names == ("a", "b") and found.labels.tolist() == [1, 0, 1]
    assert any(f"{labels}.npy" in note for note in found.notes)
    assert load_features(**found.origin).fingerprint == found.fingerprint
    one_line(lambda: load_features(source, label_column="y"), "holds one array and no columns")


def test_npy_with_several_files_of_labels(tmp_path: Path) -> None:
    for name in ("features", "labels", "targets"):
        np.save(tmp_path / f"{name}.npy", np.eye(2)[:, 0] if name != "features" else np.eye(2))
    one_line(lambda: load_features(tmp_path / "features.npy"), "found labels.npy, targets.npy")


@pytest.mark.parametrize("suffix", ["arrow", "feather"])
def test_arrow_is_the_same_as_parquet(suffix: str, tmp_path: Path) -> None:
    arrays = blobs()
    table = pa.table({"image_features": arrays["features"].tolist(), "label": arrays["labels"].tolist()})
    path = tmp_path / f"x.{suffix}"
    if suffix == "feather":
        pyarrow.feather.write_feather(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    assert holds_features(path)
    found = load_features(path)
    assert np.array_equal(found.features, arrays["features"])
    assert [found.class_names[k] for k in found.labels] == arrays["labels"].tolist()
    assert load_features(**found.origin).fingerprint == found.fingerprint


def test_ids_that_repeat_are_row_numbers(tmp_path: Path) -> None:
    found = load_features(save(tmp_path / "x.npz", **{**blobs(), "ids": np.array(["same"] * 60)}))
    assert found.ids[:2] == ("0000000", "0000001")
    assert any('first: "same" in rows 1 and 2' in note for note in found.notes)


# ---------------------------------------------------------------- what is refused


def test_a_number_is_no_array() -> None:
    one_line(lambda: load_features(3.0, labels=["a"]), "shape (N, D)", "shape ()")
    one_line(lambda: load_features(np.ones((2, 3)), labels=[0, 1], text=3.0, logit_scale=1))


BAD_ARRAYS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"features": None}, ('expected an array "features"',)),
    ({"labels": None}, ("expected a label column",)),
    ({"features": np.zeros((3, 4, 5))}, ("each of 3 rows of features", "found 60")),
    ({"features": np.zeros(60)}, ("(N, D)", "(60,)")),
    ({"features": np.zeros(())}, ("(N, D)", "shape ()")),
    ({"features": np.array([["a", "b"]] * 60)}, ("numbers of shape (N, D)",)),
    ({"features": np.zeros((60, 8), complex)}, ("complex",)),
    ({"labels": np.array(["cat", "dog"])}, ('value of "labels"', "60 rows", "found 2")),
    ({"truth": np.array(["cat"])}, ('value of "truth"', "60 rows", "found 1")),
    ({"labels": np.full(60, 1j)}, ('array "labels"', "found complex128")),
    ({"labels": np.array(["\ud800"] * 60)}, ('array "labels"', "surrogates")),
    ({"labels": np.array(["cat"] * 59 + ["rat"])}, ("1 of 60 labels", "rat")),
    ({"text": np.zeros((2, 8))}, ("(3, 8)", "(2, 8)")),
    ({"text": np.float64(3.0)}, ("(3, 8)", "shape ()")),
    ({"text": np.zeros((3, 7))}, ("(3, 8)", "(3, 7)", "one model")),
    ({"text": np.zeros(())}, ("(3, 8)", "shape ()")),
    ({"text": np.zeros(()), "class_names": None, "labels": np.arange(60) % 3}, ("at least two classes",)),
    ({"text": np.full((3, 8), np.nan)}, ("finite text features",)),
    ({"logit_scale": None}, ("text features need the model's logit_scale",)),
    ({"logit_scale": 0.0}, ("logit_scale above 0",)),
    ({"logit_scale": np.array([1.0, 2.0])}, ("logit_scale above 0",)),
    ({"text": None}, ("logit_scale goes with text features",)),
    ({"class_names": None}, ("text features need class_names",)),
]


def test_bad_arrays(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for number, (change, words) in enumerate(BAD_ARRAYS):
        with subtests.test("-".join(change), words=words):
            arrays = {name: value for name, value in {**blobs(), **change}.items() if value is not None}
            path = save(tmp_path / f"{number}.npz", **arrays)
            one_line(lambda path=path: load_features(path), *words)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_features_that_are_not_finite(value: float, tmp_path: Path) -> None:
    arrays = blobs()
    arrays["features"] = arrays["features"].astype(np.float64)
    arrays["features"][[7, 9], 2] = value
    path = save(tmp_path / "x.npz", **arrays)
    one_line(lambda: load_features(path), "2 of 60 rows", '"photo-7"', "leave these rows out")


def test_parquet_of_other_widths_or_gaps(tmp_path: Path) -> None:
    for broken, words in (([1.0, 2.0, 3.0], "found 3 in row 2"), (None, "found 0 in row 2"), ([1.0, None], "NaN")):
        table = pa.table({"features": pa.array([[1.0, 2.0], broken, [3.0, 4.0]]), "label": ["a", "b", "a"]})
        pq.write_table(table, tmp_path / "x.parquet")
        one_line(lambda: load_features(tmp_path / "x.parquet"), words)


@pytest.mark.parametrize("gap", [None, []])
def test_the_width_of_a_table_is_that_of_its_first_list(gap: Any, tmp_path: Path) -> None:
    kind = pa.list_(pa.float32())
    for lists, words in (
        ([gap, [1.0, 2.0]], "expected lists of 2 numbers"),
        ([None] * 9000 + [[1.0, 2.0]] * 2, "expected lists of numbers"),
    ):
        table = pa.table({"features": pa.array(lists, kind), "label": ["a", "b"] * (len(lists) // 2)})
        pq.write_table(table, tmp_path / "x.parquet")
        one_line(lambda: load_features(tmp_path / "x.parquet"), words, "found 0 in row 1")


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("name", ["features", "label"])
def test_a_table_with_two_columns_of_one_name(name: str, suffix: str, tmp_path: Path) -> None:
    table = pa.table({"features": [[1.0], [2.0]], "label": ["a", "b"]})
    write_table(table.append_column(name, table[name]), tmp_path / f"x{suffix}")
    one_line(lambda: load_features(tmp_path / f"x{suffix}"), f'found "{name}" more than once; rename one')


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    path = save(tmp_path / "x.npz", features=np.eye(3), labels=np.array([Evil(), "b", "c"], dtype=object))
    one_line(lambda: load_features(path), "Python objects", "never loaded")
    (tmp_path / "text.npy").write_bytes(pickle.dumps(Evil()))
    one_line(
        lambda: load_features(np.eye(2), labels=["a", "b"], class_names=("a", "b"), text=tmp_path / "text.npy"), "text"
    )
    assert not (tmp_path / "ran").exists()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    whole = io.BytesIO()
    np.savez(whole, **blobs())
    (tmp_path / "cut.npz").write_bytes(whole.getvalue()[:500])
    np.save(tmp_path / "one.npy", np.eye(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    (tmp_path / "no.parquet").write_bytes(b"no")
    (tmp_path / "one.csv").write_text("x")
    (tmp_path / "page.npz").write_text("<html>")
    (tmp_path / "one.pt").write_bytes(b"PK")
    (tmp_path / "pointer.npz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n")
    for name, words in {
        "cut.npz": "cannot be read",
        "one.npz": "found a single array",
        "no.parquet": "cannot be read",
        "missing.npz": "does not exist",
        "one.csv": "ending in .npz, .npy, .parquet, .arrow or .feather",
        "one.pt": "nothing is unpickled",
        "pointer.npz": "git lfs pull",
        "page.npz": "it is none",
    }.items():
        one_line(lambda name=name: load_features(tmp_path / name), words)


def test_texts_that_cannot_be_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", texts=np.eye(2))
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY junk")
    options: dict[str, Any] = {"labels": ["a", "b"], "class_names": ("a", "b"), "logit_scale": 1.0}
    for name, words in {
        "other.npz": ('expected an array "text" in', 'found "texts"'),
        "missing.npy": ("missing.npy does not exist",),
        "broken.npy": ("broken.npy cannot be read",),
    }.items():
        one_line(lambda name=name: load_features(np.eye(2), text=tmp_path / name, **options), *words)


def test_ids_of_64_bits_without_a_sign_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npz", **{**blobs(), "ids": np.arange(60, dtype=np.uint64) + np.uint64(2**64 - 60)})
    assert load_features(path).ids[-1] == str(2**64 - 1)


def test_a_home_folder_of_no_user_does_not_exist() -> None:
    one_line(lambda: load_features("~no-such-user/x.npz"), "~no-such-user/x.npz does not exist")
    options: dict[str, Any] = {"labels": ["a", "b"], "class_names": ("a", "b"), "logit_scale": 1.0}
    one_line(
        lambda: load_features(np.eye(2), text="~no-such-user/x.npy", **options), "~no-such-user/x.npy does not exist"
    )


def test_a_table_with_several_columns_of_features(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", blobs(), embedding=blobs()["features"].tolist())
    assert holds_features(path)
    one_line(lambda: load_features(path), "expected one column of lists of numbers", '"features", "embedding"')
    pq.write_table(pa.table({"values": [[1.0], [2.0]], "label": ["a", "b"]}), tmp_path / "none.parquet")
    assert not holds_features(tmp_path / "none.parquet")
    one_line(lambda: load_features(tmp_path / "none.parquet"), 'named "features"', 'found "values", "label"')


def test_other_arrays_may_be_named_as_labels_and_truth(tmp_path: Path) -> None:
    arrays = {**blobs(), "checked": blobs()["truth"], "voted": blobs()["labels"]}
    del arrays["truth"], arrays["labels"]
    found = load_features(save(tmp_path / "x.npz", **arrays), label_column="voted", truth_column="checked")
    expected = load_features(save(tmp_path / "y.npz", **blobs()))
    assert found.truth is not None and np.array_equal(found.truth, np.asarray(expected.truth))
    assert np.array_equal(found.labels, expected.labels)
    assert load_features(**found.origin).fingerprint == found.fingerprint


def test_calls_that_make_no_sense(stored: Path) -> None:
    eye = np.eye(3)
    one_line(lambda: load_features(eye), "array with labels=")
    one_line(lambda: load_features([[1.0, 2.0], [3.0]], labels=["a", "b"]), "(N, D)", "rows of different lengths")
    one_line(lambda: load_features(torch.eye(2).bfloat16(), labels=["a", "b"]), "(N, D)", "BFloat16")
    one_line(lambda: load_features(eye, labels=["a", "b"]), "expected 3 labels", "got 2")
    one_line(lambda: load_features(eye, labels=["a", "b", "b"], label_column="x"), "no columns")
    one_line(lambda: load_features(stored, labels=["a"]), "in memory only")
    one_line(lambda: load_features(stored, label_column="label"), 'column "label"', 'did you mean "labels"')
    with pytest.raises(SettingsError, match="limit from 1 to "):
        load_features(stored, limit=0)
    with pytest.raises(SettingsError, match="seed"):
        load_features(stored, limit=1, seed=-1)


def test_arrays_that_are_left_out_are_told(tmp_path: Path) -> None:
    found = load_features(save(tmp_path / "x.npz", features=np.eye(3), labels=[0, 1, 1], texts=np.eye(3)))
    (note,) = (note for note in found.notes if "left out" in note)
    assert '"texts"' in note and 'did you mean "text"' in note


def test_what_is_taken_for_features(stored: Path, tmp_path: Path, drawn_folder: Path) -> None:
    arrays = blobs()
    assert holds_features(stored) and holds_features(str(parquet(tmp_path / "a.parquet", arrays)))
    with_paths = parquet(tmp_path / "b.parquet", arrays, path=["a.png"] * 60)
    with_pictures = parquet(tmp_path / "c.parquet", arrays, picture=[b"x"] * 60)
    assert not any(map(holds_features, (with_paths, with_pictures, drawn_folder, "hub/name", tmp_path / "no.npz")))
    assert len(load_features(with_paths)) == 60, "asked for as features, they are"


# ---------------------------------------------------------------- the whole way


LONG = {"aum", "simifeat"}  # they train, or vote, many times


@pytest.mark.parametrize("name", mostly_slow(feature_detectors(text=True), quick={*DETECTORS} - LONG))
def test_every_feature_detector_runs_on_features(name: str, stored: Path) -> None:
    found = load_features(stored)
    verdicts = ls.scan(found, detector=detector_class(name)(), device="cpu")
    assert verdicts.metrics is not None and verdicts.metrics["auroc"] > 0.9
    assert verdicts.record["model"] == {"name": None, "fingerprint": found.text_fingerprint}
    blind = dataclasses.replace(found, truth=None)
    again = ls.scan(blind, detector=detector_class(name)(), device="cpu")
    assert again.table.equals(verdicts.table), "the truth was read, or the result is another one each time"


@pytest.mark.parametrize("name", mostly_slow(feature_detectors(text=False), quick={*DETECTORS} - LONG))
def test_detectors_without_texts(name: str, stored: Path) -> None:
    found = dataclasses.replace(load_features(stored), text=None, logit_scale=None)
    verdicts = ls.scan(found, detector=detector_class(name)(), device="cpu")
    assert verdicts.metrics is not None and verdicts.metrics["auroc"] > 0.9
    assert verdicts.record["zero_shot_agreement"] is None


def test_detectors_that_need_more_say_so(stored: Path) -> None:
    found = load_features(stored)
    without = dataclasses.replace(found, text=None, logit_scale=None)
    for name in DETECTORS:
        if name not in feature_detectors(text=True):
            message = one_line(lambda name=name: ls.scan(found, detector=detector_class(name)()), name, "a model")
            assert "knn" in message and "lemon" in message
        elif name not in feature_detectors(text=False):
            message = one_line(lambda name=name: ls.scan(without, detector=detector_class(name)()), name, "logit_scale")
            assert "knn" in message and message.count("lemon") == (name == "lemon")
    one_line(lambda: ls.scan(found), "detector deft needs the images and a model")


def test_a_detector_that_names_the_issues_has_no_threshold(stored: Path) -> None:
    named = ls.scan(load_features(stored), detector=detector_class("confident-learning")()).record
    assert named["threshold"] is None and named["demand_agreement"] is None
    record = ls.scan(load_features(stored), detector=detector_class("clip-margin")()).record
    assert record["threshold"] == 0.5 and record["demand_agreement"] is False


def test_images_need_a_model(drawn_folder: Path) -> None:
    images = ls.load_images(drawn_folder)
    one_line(lambda: ls.scan(images, detector=ls.KNN()), "images need a model")
    one_line(lambda: ls.scan(images), "images need a model")


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_the_command_line(
    suffix: str, stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("labelsieve.vlm.loading.load_vlm", load)
    np.save(tmp_path / "text.npy", blobs()["text"])
    source, more = stored, []
    if suffix == "parquet":
        source = parquet(tmp_path / "x.parquet", blobs())
        more = ["--truth-column", "truth", "--class-names", *NAMES]
        more += ["--text-features", str(tmp_path / "text.npy"), "--logit-scale", "20"]
    out = tmp_path / "run"
    words = ["scan", str(source), "--detector", "lemon", "--out", str(out), "--device", "cpu", *more]
    assert main(words) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["detector"]["name"] == "lemon" and record["origin"]["source"] == str(source)
    report = (out / "report.html").read_text()
    flagged = [row["id"] for row in Verdicts.load(out).table.to_pylist() if row["is_label_issue"]]
    assert flagged and all(f'<span class="missing">{name}</span>' in report for name in flagged)
    assert "<img src" not in report and "No image:" not in report
    assert main(["report", str(out)]) == 0 and (out / "report.html").read_text() == report
    assert main(["export", str(out), "--format", "csv", "--out", str(tmp_path / "x.csv")]) == 0
    capsys.readouterr()
    assert main(["export", str(out), "--format", "imagefolder", "--out", str(tmp_path / "clean")]) == 1
    assert "features, which have no images" in capsys.readouterr().err


def test_command_lines_that_make_no_sense(
    stored: Path, drawn_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "run")]
    for code, words, expected in (
        (1, [str(stored), *out], "--detector deft needs the images and a model; with features alone use one of joint"),
        (2, [str(stored), "--detector", "knn", "--split", "test", *out], "features come without --split; leave it out"),
        (2, [str(drawn_folder), "--logit-scale", "3", *out], "go with features only"),
    ):
        assert main(["scan", *words]) == code
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1
        assert not (tmp_path / "run").exists(), "an empty folder was left behind"


def test_the_diagnosis_speaks_of_equal_rows() -> None:
    arrays = blobs()
    arrays["features"][1] = arrays["features"][0]
    found = load_features(arrays["features"], labels=arrays["labels"])
    assert found.labels[0] == found.labels[1]
    labels = found.labels.copy()
    labels[1] = (labels[1] + 1) % 3
    verdicts = ls.scan(found.with_labels(labels), detector=ls.KNN())
    assert "duplicates-conflict" in {finding["code"] for finding in verdicts.record["findings"]}


def test_the_record_is_public() -> None:
    found: NDArray[np.float32] = ls.load_features(np.eye(2), labels=["a", "b"]).features
    assert found.shape == (2, 2) and ls.LabelledFeatures is LabelledFeatures
    with pytest.raises(DataError):
        ls.load_features(np.eye(2), labels=["a", "a"])
