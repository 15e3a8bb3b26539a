"""The record that every stage after the data reads: images with one given label each."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from labelsieve.data.file_kinds import is_pointer
from labelsieve.data.labels import checked_indices
from labelsieve.errors import DataError
from labelsieve.provenance import fingerprint

if TYPE_CHECKING:
    from datasets import Dataset

# Above this many pixels a file is taken for a decompression bomb (about 13,000 x 13,000).
MAX_PIXELS = 178_956_970


class UnreadableImageError(DataError):
    """One image cannot be decoded. The run goes on without it; its row carries the reason."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImages:
    """N images with a given label each, decoded one at a time when asked for.

    Attributes:
        dataset: A `datasets.Dataset` with N rows and a column `image` of undecoded pictures, each a dictionary with
            `bytes` (the encoded file) or `path`.
        ids: N different names of the images that stay the same from run to run (for a folder, the relative path).
        labels: Shape (N,), int64, values 0 to K-1: the given labels, indices into `class_names`.
        class_names: The K names, in the order of the indices.
        contents: Shape (N,), uint64: a hash of each encoded picture; equal pictures have equal values.
        truth: Shape (N,), int64, or None: the true labels where they are known. Only metrics read them.
        origin: What to pass to :func:`labelsieve.load_images` to load the same again; empty for data in memory.
        notes: Remarks of the loader for the user, one line each.
    """

    dataset: Dataset
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    contents: NDArray[np.uint64]
    truth: NDArray[np.int64] | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def pixels_fingerprint(self) -> str:
        """Fingerprint of the pictures and their order, without the labels: what cached features belong to."""
        return fingerprint(self.contents)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of pictures, ids, given labels and class names: what a run belongs to."""
        return fingerprint(self.contents, list(self.ids), self.labels, list(self.class_names))

    def open(self, index: int) -> Image.Image:
        """Decodes one image to RGB, upright as its EXIF orientation says, first frame if animated.

        Raises:
            UnreadableImageError: The file is missing, empty, truncated, not an image, or far too large.
        """
        row = self.dataset[int(index)]["image"]
        try:
            if not row or (row["bytes"] is None and row["path"] is None):
                raise DataError("no image in this row")
            return decode(row["bytes"] if row["bytes"] is not None else read_file(row["path"]))
        except DataError as error:
            raise UnreadableImageError(f"{self.ids[index]}: {error}") from None
        except OSError as error:
            raise UnreadableImageError(f"{self.ids[index]}: {error.strerror or error}") from None

    def with_labels(self, labels: NDArray[np.int64], *, truth: NDArray[np.int64] | None = None) -> LabelledImages:
        """Returns the same images with other given labels, shape (N,); `truth` replaces the true labels if given."""
        shape: dict[str, Any] = {"count": len(self), "class_names": self.class_names}
        true = self.truth if truth is None else checked_indices(truth, what="true labels", **shape)
        return replace(self, labels=checked_indices(labels, what="labels", **shape), truth=true, origin={})

    def take(self, rows: NDArray[np.int64]) -> LabelledImages:
        """Returns the images of the given rows, in that order, with all classes kept."""
        return replace(
            self,
            dataset=self.dataset.select(rows),
            ids=tuple(self.ids[row] for row in rows),
            labels=self.labels[rows],
            contents=self.contents[rows],
            truth=None if self.truth is None else self.truth[rows],
            origin={},  # loading would give all rows again
        )


def read_file(path: str | Path) -> bytes:
    """Reads the file of a picture.

    Raises:
        OSError: It cannot be read, or is a pipe or a device: the one keeps its reader waiting, the other may not end.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not an ordinary file", str(path))
    return Path(path).read_bytes()


def decode(data: bytes) -> Image.Image:
    """Decodes an encoded picture to an upright RGB image.

    Palette, CMYK and 16-bit pictures are converted (16 bits by scaling, not by cutting off); transparent ones are laid
    on white; of an animation the first frame is taken.

    Raises:
        DataError: The bytes are not a whole picture, or it has more than `MAX_PIXELS` pixels.
    """
    if not data:
        raise DataError("the file is empty")
    if is_pointer(data):
        raise DataError("a Git LFS pointer, not the image itself; get it with: git lfs pull")
    try:
        # Pillow's warning at half our limit is let through: filters of warnings belong to the whole process, and
        # setting them aside in one thread would leave them changed in another
        with Image.open(io.BytesIO(data)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"{picture.width} x {picture.height} pixels are more than the {MAX_PIXELS:,} allowed")
            return upright_rgb(picture)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"more pixels than the {MAX_PIXELS:,} allowed") from None
    except UnidentifiedImageError:
        raise DataError("not a picture that can be decoded") from None
    except Exception as error:  # on broken files the decoders raise nearly anything, struct.error for one
        raise DataError(f"broken picture: {' '.join(str(error).split()) or type(error).__name__}") from None


def upright_rgb(picture: Image.Image) -> Image.Image:
    """Turns a picture upright as its EXIF orientation says, and converts it to RGB as :func:`decode` says."""
    picture.load()  # before its EXIF block is read: a truncated file should say so
    return _to_rgb(ImageOps.exif_transpose(picture))


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F" or picture.mode.startswith("I"):
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
        # "I;16" is 16 bits wide; "I" and "F" may hold 8-bit values too, which only the values tell
        values = values / 257.0 if picture.mode.startswith("I;") or (values.size and values.max() > 255) else values
        return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")
