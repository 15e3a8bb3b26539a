"""Published data sets in their official layout: read back exactly, and one clear line where something is wrong."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch

from labelsieve.core.errors import DataError
from labelsieve.data.loading import load_images
from labelsieve.data.published.clothing1m import balanced
from labelsieve.data.published.layout import distinct_names
from labelsieve.data.published.pickles import read_pickle
from labelsieve.data.published.registry import PUBLISHED
from labelsieve.demo import MINI_CLIP
from published_formats import car_list, python2_pickle, write_human
from small_published import (
    FINE_HUMAN,
    REPLICAS,
    TEN,
    TEN_HUMAN,
    TEN_TRAIN,
    Hostile,
    hostile_pickle,
    jpeg,
    packed,
    text,
    write_animal10n,
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of all replicas, by name. Copy one to change it."""
    root = tmp_path_factory.mktemp("published")
    for name, replica in REPLICAS.items():
        replica.write(root / name)
    return root


@pytest.fixture
def copy_of(written: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Returns a function that copies a replica."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(written / name, tmp_path / name))

    return copy


def refusal(source: str, **options: Any) -> str:
    """Returns the one line with which a source is refused."""
    with pytest.raises(DataError) as error:
        load_images(source, **options)
    said = str(error.value)
    assert "\n" not in said and len(said) < 1000
    return said


def test_every_published_data_set_has_a_replica_of_every_split() -> None:
    assert {name: set(known.splits) for name, known in PUBLISHED.entries.items()} == {
        name: set(replica.splits) for name, replica in REPLICAS.items()
    }
    assert all("train" in known.splits for known in PUBLISHED.entries.values()), "the default of every split"


def test_what_was_written_is_read(subtests: pytest.Subtests, written: Path) -> None:
    for name, replica in REPLICAS.items():
        for split, expected in replica.splits.items():
            with subtests.test(name=name, split=split):
                images = load_images(f"{name}:{written / name}", split=split)
                assert images.class_names == tuple(expected.classes)
                assert images.ids == tuple(expected.ids)
                assert images.labels.tolist() == list(expected.labels)
                assert (images.truth is None) == (expected.truth is None)
                if expected.truth is not None and images.truth is not None:
                    assert images.truth.tolist() == list(expected.truth)
                if expected.pixels is not None:
                    pixels = [np.asarray(images.open(row)) for row in range(len(images))]
                    assert np.array_equal(pixels, expected.pixels)
                else:
                    there = [row for row, image in enumerate(images.ids) if "gone" not in image]
                    assert {images.open(row).mode for row in there} == {"RGB"}, "grey pictures get colours"
                again = load_images(**json.loads(json.dumps(dict(images.origin))))
                assert again.fingerprint == images.fingerprint and again.origin == images.origin


def test_the_default_split_is_train(subtests: pytest.Subtests, written: Path) -> None:
    for name, replica in REPLICAS.items():
        with subtests.test(name=name):
            images = load_images(f"{name}:{written / name}")
            assert images.ids == tuple(replica.splits["train"].ids)
            assert any(note.startswith("split train of train, ") for note in images.notes)
            assert "split" not in images.origin


def test_nothing_there_is_one_line(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for name in REPLICAS:
        with subtests.test(name=name):
            folder = tmp_path / name
            (folder / "empty").mkdir(parents=True)
            for split in PUBLISHED.entries[name].splits:
                said = refusal(f"{name}:{folder / 'empty'}", split=split)
                assert "expected " in said and "missing: " in said and "found: nothing" in said
            assert "found: no such folder" in refusal(f"{name}:{folder / 'none'}")
            (folder / "file").write_text("x")
            assert str(folder / "file") in refusal(f"{name}:{folder / 'file'}")


def test_options_that_do_not_go_with_it(subtests: pytest.Subtests, written: Path) -> None:
    for name in REPLICAS:
        with subtests.test(name=name):
            source, known = f"{name}:{written / name}", PUBLISHED.entries[name]
            assert 'expected a column "photo"' in refusal(source, image_column="photo")
            assert "name another with image_column" in refusal(source, image_column="label")
            assert 'expected a column "lable"' in refusal(source, label_column="lable")
            assert 'expected a column "truth"' in refusal(source, truth_column="truth")
            said = refusal(source, split="tset")
            assert f"found {', '.join(known.splits)}" in said and known.about in said
            assert 'expected a split "train[:2]"' in refusal(source, split="train[:2]")


def test_paths_may_be_relative_or_of_the_home_folder(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(written))
    whole = load_images(f"cub-200-2011:{written / 'cub-200-2011' / 'CUB_200_2011'}")
    monkeypatch.chdir(written)
    for place in ("cub-200-2011", "./cub-200-2011/", "~/cub-200-2011"):
        images = load_images(f"cub-200-2011:{place}")
        assert images.fingerprint == whole.fingerprint
        assert images.origin["source"] == f"cub-200-2011:{written / 'cub-200-2011'}"


def test_names_that_are_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert 'got cifar10m (did you mean "cifar10' in refusal("cifar10m:data")
    assert 'got clothing-1m (did you mean "clothing1m"?)' in refusal("clothing-1m:/data/x.csv")
    assert "as in webvision:PATH, found none" in refusal("webvision")
    assert "as in webvision:PATH, found none" in refusal("webvision:"), "and not the folder of the command"
    for source in ("C:\\photos", "c:/photos", "https://example.org/photos", "./cifar10m:data", "a/b/c:d"):
        assert f"{source} does not exist; check the path" in refusal(source)
    assert "Hub data set some-name/cifar10:small" in refusal("some-name/cifar10:small")


def test_a_path_that_exists_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("cat/0.jpg", "dog/1.jpg")):
        jpeg(tmp_path / "cifar10:mine" / name, number)
    monkeypatch.chdir(tmp_path)
    images = load_images("cifar10:mine")
    assert images.class_names == ("cat", "dog") and images.origin["source"] == str(tmp_path / "cifar10:mine")


# ---------------------------------------------------------------- CIFAR


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "cifar10n", "cifar100n"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar_in_the_archive_as_it_came(name: str, split: str, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of(name)
    whole = load_images(f"{name}:{folder}", split=split)
    home = next(folder.glob("cifar-*"))
    (folder / "pack").mkdir()
    home.rename(folder / "pack" / home.name)
    archive = folder / f"{home.name.replace('-batches-py', '-python')}.tar.gz"
    packed(folder / "pack", archive)
    shutil.rmtree(folder / "pack")
    sources = [f"{name}:{folder}", *([f"{name}:{archive}"] if not name.endswith("n") else [])]
    for source in sources:
        assert load_images(source, split=split).fingerprint == whole.fingerprint
    whole_archive = archive.read_bytes()
    for data in (whole_archive[: len(whole_archive) // 2], b"no archive"):
        archive.write_bytes(data)
        said = refusal(f"{name}:{folder}")
        assert "which cannot be read" in said or "missing: " in said


def test_labels_of_cifar_that_another_column_holds(written: Path) -> None:
    source = f"cifar10n:{written / 'cifar10n'}"
    images = load_images(source)
    others = "aggre_label, random_label1, random_label2, random_label3"
    assert f"the given labels are worse_label; --label-column takes {others}" in images.notes
    assert "the true labels, for metrics only, are clean_label" in images.notes
    for column in ("aggre_label", "random_label1", "random_label2", "random_label3"):
        images = load_images(source, label_column=column)
        assert images.labels.tolist() == np.reshape(TEN_HUMAN[column], -1).tolist()
        assert images.truth is not None and images.truth.tolist() == TEN_TRAIN
        assert not any("given labels are" in note for note in images.notes)
    three = [f"random_label{number}" for number in (1, 2, 3)]
    images = load_images(source, label_column=three)
    assert images.annotations is not None and images.annotations.names == tuple(three)
    expected = np.stack([np.reshape(TEN_HUMAN[column], -1) for column in three], axis=1)
    np.testing.assert_array_equal(images.annotations.labels, expected)
    assert images.truth is not None and images.truth.tolist() == TEN_TRAIN
    assert load_images(source, label_column="clean_label").truth is None, "nothing is left to be found"
    other = load_images(source, truth_column="worse_label", label_column="aggre_label")
    assert other.truth is not None and other.truth.tolist() == TEN_HUMAN["worse_label"].tolist()
    assert other.origin["truth_column"] == "worse_label"


def test_groups_of_classes_of_cifar100(written: Path) -> None:
    coarse = ("fish", "fruit and vegetables", "vehicles 1")
    images = load_images(f"cifar100:{written / 'cifar100'}", label_column="coarse_label")
    assert images.class_names == coarse and images.labels.tolist() == FINE_HUMAN["clean_coarse_label"]
    images = load_images(f"cifar100n:{written / 'cifar100n'}", label_column="noisy_coarse_label")
    assert images.class_names == coarse and images.labels.tolist() == FINE_HUMAN["noisy_coarse_label"]
    assert images.truth is not None and images.truth.tolist() == FINE_HUMAN["clean_coarse_label"]


def test_pickles_that_ask_for_more_are_refused(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder, trace = copy_of("cifar10"), tmp_path / "was-here"
    meta = folder / "cifar-10-batches-py" / "batches.meta"
    whole = meta.read_bytes()
    builtin = b"\x80\x02cbuiltins\neval\n(X\x04\x00\x00\x001234tR."
    for data, why in (
        (hostile_pickle(trace), "which is not run"),
        (builtin, "it asks for builtins.eval, which is not run"),
        (b"cnumpy\nload\n.", "it asks for numpy.load"),
        (whole[: len(whole) // 2], "which cannot be read"),
        (b"", "which cannot be read"),
        (python2_pickle([1, 2]), "it holds a list"),
        (pickle.dumps({"label_names": np.array(["a", 1], dtype=object)}, protocol=2), "it holds an array of O8"),
        (python2_pickle({"names": list(TEN)}), 'expected an entry "label_names"'),
        (python2_pickle({"label_names": [1, 2]}), "expected a list of class names"),
        (python2_pickle({"label_names": ["cat"] * 10}), "class names must differ"),
        (python2_pickle({"label_names": ["cat", "dog"]}), "expected labels from 0 to 1"),
    ):
        meta.write_bytes(data)
        assert why in refusal(f"cifar10:{folder}")
    assert not trace.exists()


def test_arrays_of_either_numpy_in_either_order() -> None:
    rows = np.arange(6, dtype=np.uint8).reshape(2, 3)
    wide = np.array([1, -2, 2**40], dtype=">i8")
    for protocol in (2, 3, 4):
        record = {"data": rows, "by_column": np.asfortranarray(rows), "wide": wide, "names": ["a"], b"raw": b"b"}
        read = read_pickle(pickle.dumps(record, protocol=protocol), where="x")
        assert np.array_equal(read["data"], rows) and np.array_equal(read["by_column"], rows)
        assert read["wide"].tolist() == wide.tolist() and read["names"] == ["a"] and read["raw"] == "b"
    assert np.array_equal(read_pickle(python2_pickle({"data": rows}), where="x")["data"], rows)


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"labels": [1, 2, 3]}, "expected 2 labels in labels of"),
        ({"labels": [1, 99]}, "expected labels from 0 to 9"),
        ({"labels": ["cat", "dog"]}, "expected labels as integers"),
        ({"labels": [[1], [2, 3]]}, "expected labels as integers"),
        ({"data": np.zeros((2, 100), np.uint8)}, "expected pixels as uint8 of shape (N, 3072)"),
        ({"data": [1, 2]}, "found list"),
    ],
)
def test_batches_of_cifar_that_are_wrong(part: dict[str, Any], why: str, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("cifar10")
    record = {"labels": [1, 2], "data": np.zeros((2, 3072), np.uint8), **part}
    (folder / "cifar-10-batches-py" / "data_batch_3").write_bytes(python2_pickle(record))
    said = refusal(f"cifar10:{folder}")
    assert why in said and "data_batch_3" in said


def test_a_half_downloaded_cifar(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("cifar10n")
    (folder / "cifar-10-batches-py" / "data_batch_4").unlink()
    said = refusal(f"cifar10n:{folder}")
    assert "missing: data_batch_4; found: batches.meta, data_batch_1" in said
    assert len(load_images(f"cifar10n:{folder}", split="test")) == 2
    (folder / "CIFAR-10_human.pt").unlink()
    assert "missing: CIFAR-10_human.pt; found: cifar-10-batches-py/" in refusal(f"cifar10n:{folder}", split="test")


def test_labels_of_people_that_do_not_fit(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy_of("cifar10n")
    file, clean = folder / "CIFAR-10_human.pt", np.array(TEN_TRAIN)
    swapped = clean[[0, 1, 3, 2, *range(4, 10)]]
    for change, why in (
        ({"clean_label": swapped}, '2 of 10 labels differ (first: row 2, "automobile" instead of "airplane")'),
        ({"worse_label": clean[:9]}, "expected 10 labels in worse_label of"),
        ({"aggre_label": clean + 1}, "expected labels from 0 to 9 in aggre_label of"),
        ({"aggre_label": clean / 2}, "which cannot be read: it holds an array of f8 instead of integers"),
    ):
        write_human(file, {**TEN_HUMAN, **change})
        assert why in refusal(f"cifar10n:{folder}")
    write_human(file, {name: labels for name, labels in TEN_HUMAN.items() if name != "random_label2"})
    assert f'expected an entry "random_label2" in {file}' in refusal(f"cifar10n:{folder}")
    write_human(file, {name: torch.tensor(np.array(labels)) for name, labels in TEN_HUMAN.items()})
    assert load_images(f"cifar10n:{folder}").labels.tolist() == list(REPLICAS["cifar10n"].splits["train"].labels)
    torch.save({"clean_label": Hostile(tmp_path / "was-here")}, file)
    said = [refusal(f"cifar10n:{folder}")]
    for data in (hostile_pickle(tmp_path / "was-here"), b"", b"no such file"):
        file.write_bytes(data)
        said.append(refusal(f"cifar10n:{folder}"))
    torch.save({"clean_label": os.system}, file)  # of a module that torch has a message of its own for
    said.append(refusal(f"cifar10n:{folder}"))
    assert f"unsupported GLOBAL {os.name}.system" in said[-1]
    assert all("which cannot be read: " in line and "weights_only" not in line for line in said), said
    assert not (tmp_path / "was-here").exists()


# ---------------------------------------------------------------- the others


def test_names_that_several_classes_share() -> None:
    codes = ("n1", "n2", "n3", "n4")
    names = distinct_names(["crane", "Crane, hoist", "crane, heron, bird", "heron"], codes=codes)
    assert names == ("crane", "Crane, hoist", "crane, heron", "heron")
    assert distinct_names(["maillot", "maillot"], codes=codes) == ("maillot (n1)", "maillot (n2)")


def test_tables_of_tiny_imagenet_that_do_not_fit(copy_of: Callable[[str], Path]) -> None:
    home = copy_of("tiny-imagenet") / "tiny-imagenet-200"
    text(home / "val" / "val_annotations.txt", "val_0.JPEG\tn00000000\t0\t0\t1\t1")
    assert '1 have none (first: "n00000000")' in refusal(f"tiny-imagenet:{home}", split="val")
    shutil.rmtree(home / "train" / "n03126707")
    assert "missing: train/n03126707/images/" in refusal(f"tiny-imagenet:{home}")
    text(home / "wnids.txt", "n02124075", "n99999999")
    assert f"expected a line in {home / 'words.txt'}" in refusal(f"tiny-imagenet:{home}")


def test_lists_of_cars_that_are_wrong(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("stanford-cars")
    file, source = folder / "devkit" / "cars_train_annos.mat", f"stanford-cars:{folder}"
    for content, why in (
        ({"annotation": car_list([(1, "00001.jpg")])}, 'expected a variable "annotations"'),
        ({"annotations": np.arange(3)}, "found no class"),
        ({"annotations": car_list([(0, "00001.jpg"), (1, "00002.jpg")])}, "expected labels from 1 to 3"),
        ({"annotations": car_list([(1, "00001.jpg"), (2, "../../00002.jpg")])}, "leads out of the folder"),
        ({"annotations": car_list([(1, "00001.jpg"), (2, 7)])}, "expected texts in"),
        ({"annotations": car_list([(1, "00001.jpg"), ("x", "00002.jpg")])}, "integers"),
    ):
        scipy.io.savemat(file, content)
        assert why in refusal(source)
    file.write_bytes(b"MATLAB 5.0 no more")
    assert "expected a file of MATLAB in" in refusal(source)
    (folder / "cars_test_annos_withlabels.mat").rename(folder / "devkit" / "cars_test_annos_withlabels.mat")
    assert load_images(source, split="test").labels.tolist() == [2]


def test_lists_of_birds_that_do_not_fit(copy_of: Callable[[str], Path]) -> None:
    home = copy_of("cub-200-2011") / "CUB_200_2011"
    text(home / "image_class_labels.txt", "1 1", "2 2", "3 9", "4 3")
    assert f"expected a line in {home / 'classes.txt'}" in refusal(f"cub-200-2011:{home}")
    text(home / "image_class_labels.txt", "1 1", "2 2")
    assert '2 have none (first: "3")' in refusal(f"cub-200-2011:{home}")
    text(home / "image_class_labels.txt", "1 1", "2 2", "3 3", "4 3", "5 1")
    assert f"expected a line in {home / 'images.txt'}" in refusal(f"cub-200-2011:{home}")
    text(home / "image_class_labels.txt", "1 1", "2")
    assert "expected two values a line in" in refusal(f"cub-200-2011:{home}")
    (home / "classes.txt").write_bytes(b"1 \xff\n")
    assert "classes.txt cannot be read" in refusal(f"cub-200-2011:{home}")


def test_missing_pictures_are_noted_and_paths_stay_inside(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("clothing1m")
    (folder / "images" / "1" / "03,3.jpg").unlink()
    assert "1 of 4 images are missing (first: images/1/03,3.jpg)" in load_images(f"clothing1m:{folder}").notes
    shutil.rmtree(folder / "images")
    (folder / "images").mkdir()
    assert "none of the 4 images of Clothing1M in" in refusal(f"clothing1m:{folder}")
    text(folder / "noisy_label_kv.txt", "../secret.jpg 1", "images/0/00,0.jpg 0")
    text(folder / "noisy_train_key_list.txt", "../secret.jpg", "images/0/00,0.jpg")
    assert 'the path "../secret.jpg" in row 1 of Clothing1M' in refusal(f"clothing1m:{folder}")


def test_labels_of_clothes_that_are_missing(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("clothing1m")
    text(folder / "noisy_train_key_list.txt", "images/0/00,0.jpg", "images/9/99,9.jpg")
    assert "of the 2 entries of" in refusal(f"clothing1m:{folder}")
    text(folder / "noisy_label_kv.txt", "images/0/04,4.jpg 3")
    assert "expected labels from 0 to 2" in refusal(f"clothing1m:{folder}", split="both")


def test_a_balanced_sample_is_the_same_everywhere() -> None:
    labels = np.repeat([0, 1, 2, 3], [1000, 3, 500, 7])
    rows = balanced(labels, 100)
    assert np.bincount(labels[rows]).tolist() == [45, 3, 45, 7]
    assert (np.diff(rows) > 0).all() and np.array_equal(rows, balanced(labels, 100))
    assert rows[:5].tolist() == [9, 34, 53, 54, 66], "a sample of another seed or release is another data set"
    assert np.array_equal(balanced(labels, 5000), np.arange(len(labels)))
    assert len(balanced(labels[:0], 10)) == 0


def test_lists_of_webvision_that_do_not_fit(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("webvision")
    (folder / "imagenet").mkdir()
    (folder / "imagenet-val").rename(folder / "imagenet" / "val")
    images = load_images(f"webvision:{folder}", split="imagenet-val")
    assert images.ids[0] == "imagenet/val/n00000000/ILSVRC2012_val_00000001.JPEG"
    (folder / "imagenet" / "val" / "n00000007").rmdir()
    assert "missing: n00000007/" in refusal(f"webvision:{folder}", split="imagenet-val")
    text(folder / "info" / "val_filelist.txt", "val000001.jpg 52")
    assert "expected labels from 0 to 51" in refusal(f"webvision:{folder}", split="val")


def test_names_of_animals_that_say_no_label(tmp_path: Path) -> None:
    write_animal10n(tmp_path / "a" / "raw_image")
    assert len(load_images(f"animal-10n:{tmp_path / 'a'}")) == 3
    jpeg(tmp_path / "a" / "raw_image" / "training" / "cat.jpg", 1)
    assert "expected labels as integers in the names of the files in" in refusal(f"animal-10n:{tmp_path / 'a'}")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "raw_image.zip").write_bytes(b"x")
    assert "found: raw_image.zip" in refusal(f"animal-10n:{tmp_path / 'b'}")


def test_verified_food(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("food-101n")
    source = f"food-101n:{folder}"
    images = load_images(source, split="verified-val", label_column="verified")
    assert images.class_names == ("0", "1") and images.labels.tolist() == [0, 1]
    meta = folder / "Food-101N_release" / "meta"
    text(meta / "verified_val.tsv", "class_name/key\tverification_label", "apple_pie/a.jpg\t2")
    assert "expected labels from 0 to 1" in refusal(source, split="verified-val")
    for lines, found in ((["apple_pie/a.jpg"], '"apple_pie/a.jpg"'), ([], "nothing")):
        text(meta / "imagelist.tsv", *lines)
        assert f'expected a header "class_name" in {meta / "imagelist.tsv"}, found {found}' in refusal(
            f"food-101n:{folder}"
        )
    text(meta / "imagelist.tsv", "class_name/key", "pizza/a.jpg")
    assert f"expected a line in {meta / 'classes.txt'}" in refusal(source)


# ---------------------------------------------------------------- the command line


def test_from_the_command_line(run: Run, written: Path, tmp_path: Path) -> None:
    source, out = f"cub-200-2011:{written / 'cub-200-2011'}", tmp_path / "run"
    quick = ("--model", MINI_CLIP, "--device", "cpu", "--epochs", 0)
    code, said, err = run("scan", source, *quick, "--out", out)
    assert code == 0, err
    assert "le conte sparrow" in said + (out / "report.html").read_text(encoding="utf-8")
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["origin"] == {"source": source}
    assert run("report", out)[0] == 0, "the pictures are found again"
    code, _, err = run("scan", source, *quick, "--out", written / "cub-200-2011" / "run")
    assert code == 1 and "expected --out outside of the source folder" in err and err.count("\n") == 1
    code, _, err = run("scan", f"cub-200:{written}", *quick, "--out", tmp_path / "other")
    assert code == 1 and 'did you mean "cub-200-2011"?' in err and err.count("\n") == 1


def test_true_labels_give_metrics(run: Run, written: Path, tmp_path: Path) -> None:
    words = ("--model", MINI_CLIP, "--device", "cpu", "--detector", "label-match", "--out", tmp_path / "run")
    code, _, err = run("scan", f"cifar10n:{written / 'cifar10n'}", *words)
    assert code == 0, err
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_model_cards_do_not_tell_the_folder(written: Path) -> None:
    from labelsieve.vlm.names import without_folders

    assert without_folders(f"cifar10n:{written / 'cifar10n'}") == "cifar10n:cifar10n"


def test_list_shows_them(run: Run) -> None:
    out = " ".join(run("list")[1].split())
    for name, known in PUBLISHED.entries.items():
        assert f"{name}:PATH {known.about} as published; splits {', '.join(known.splits)}" in out


def test_the_documentation_names_them() -> None:
    page = (Path(__file__).parents[3] / "docs" / "data-sets.md").read_text(encoding="utf-8")
    for name, known in PUBLISHED.entries.items():
        section = page.split(f"## {known.about}\n")[1].split("\n## ")[0]
        assert f"`{name}:PATH`" in section
        assert all(f"`{split}`" in section for split in known.splits)
