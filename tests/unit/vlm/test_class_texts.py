"""Class names that are one text to a model, for every family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labelsieve.core.errors import SettingsError
from labelsieve.data.loading import load_images
from labelsieve.data.tags.loading import load_tags
from labelsieve.detect.compatibility import check_input
from labelsieve.detect.joint import Joint
from labelsieve.detect.label_match import LabelMatch
from labelsieve.detect.tags.label_match import TagLabelMatch
from labelsieve.detect.zero_shot import class_text_notes, same_texts
from labelsieve.tags.scan import scan_tags
from labelsieve.vlm.loading import load_vlm
from slow_cases import mostly_slow
from small_families import TINY_FAMILIES
from small_pictures import plain

EMOJIS = ("\U0001f457", "\U0001f3a9", "\U0001f45f")


KINDS = ["clip", "siglip", "siglip2", "blip", "albef", "open_clip", "open_clip of SigLIP"]


@pytest.mark.parametrize("kind", mostly_slow(KINDS, quick={"clip", "siglip", "blip"}))
def test_names_that_are_one_text(kind: str, tmp_path: Path) -> None:
    for library in TINY_FAMILIES[kind].needs:
        pytest.importorskip(library)
    TINY_FAMILIES[kind].make(tmp_path)
    vlm = load_vlm(tmp_path)
    assert class_text_notes(vlm, ("cat", "cup", "tree")) == ()
    assert same_texts(vlm, ("cat", "sail_boat", "Sail Boat")) == [["sail_boat", "Sail Boat"]]
    if kind in ("clip", "open_clip"):  # bytes: no character is unknown
        assert class_text_notes(vlm, EMOJIS) == ()
        return
    same, unknown = class_text_notes(vlm, (*EMOJIS, "cat"))
    assert "are one text to" in same and all(f'"{name}"' in same and f'"{name}"' in unknown for name in EMOJIS)
    assert '"cat"' not in same + unknown and "knows no part of 3 class names" in unknown


def test_detectors_that_go_by_names_refuse_one_text(tmp_path: Path) -> None:
    TINY_FAMILIES["blip"].make(tmp_path)
    vlm = load_vlm(tmp_path)
    for name in EMOJIS:
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "0.png").write_bytes(plain((1, 2, 3)))
    images = load_images(tmp_path / "photos")
    check_input(Joint(), images, vlm)
    with pytest.raises(SettingsError, match=r"label-match goes by the class names, .* are one text"):
        check_input(LabelMatch(), images, vlm)
    tagged = load_tags(np.zeros((2, 8, 8, 3), np.uint8), tags=[list(EMOJIS), []])
    with pytest.raises(SettingsError, match=r"label-match goes by the class names, .* use one of joint, "):
        scan_tags(tagged, vlm, detector=TagLabelMatch())
