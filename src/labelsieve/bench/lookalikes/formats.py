"""Writers of the file formats of published data sets, for look-alikes and for replicas in tests."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelsieve.core.files import write_atomically, write_parquet

_QUALITY = 95


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file, atomically."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(data)


def write_lines(path: Path, *lines: str, end: str = "\n") -> None:
    """Writes a text of lines as UTF-8, atomically."""
    write_bytes(path, "".join(line + end for line in lines).encode())


def write_jpeg(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Writes an image of shape (H, W, 3), atomically."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY)
    write_bytes(path, buffer.getvalue())


# ---------------------------------------------------------------- CIFAR


def python2_pickle(value: Any) -> bytes:
    """Pickles dictionaries, lists, texts, integers and arrays of uint8 as Python 2 does: texts are bytes.

    The archives of CIFAR are such pickles of protocol 2. The bytes are written here directly, without `pickle`.
    """
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value: Any) -> bytes:
    if isinstance(value, str):
        return b"T" + struct.pack("<i", len(value)) + value.encode()
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, dict):
        return b"}(" + b"".join(_python2(key) + _python2(each) for key, each in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_python2, value)) + b"e"
    shape = b"(" + b"".join(map(_python2, value.shape)) + b"t"
    constructor = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + _python2(0) + b"\x85" + _python2("b") + b"\x87R"
    )
    dtype = b"cnumpy\ndtype\n" + _python2("u1") + _python2(0) + _python2(1) + b"\x87R"
    dtype += b"(" + _python2(3) + _python2("|") + b"NNN" + _python2(-1) + _python2(-1) + _python2(0) + b"tb"
    return constructor + b"(" + _python2(1) + shape + dtype + b"\x89" + _python2(value.tobytes()) + b"tb"


def cifar_rows(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns images (N, 32, 32, 3) as rows (N, 3072): all red values, then all green and all blue ones."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(len(pixels), -1)


def write_human(path: Path, labels: Mapping[str, Any], *, old_numpy: bool = True) -> None:
    """Writes human labels in the format of CIFAR-N.

    This is the only use of pickle, through `torch.save`, as in the official files: it contains only numbers, and the
    reader rejects anything else.

    Args:
        path: The file to write.
        labels: Name of each set of labels to an array (N,) of class indices.
        old_numpy: Whether to write the module names of old numpy versions.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(dict(labels), buffer)
    write_bytes(path, _renamed(buffer.getvalue()) if old_numpy else buffer.getvalue())


def _renamed(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"numpy._core.", b"numpy.core."))
    return buffer.getvalue()


# ---------------------------------------------------------------- MATLAB


def write_matlab(path: Path, variables: Mapping[str, NDArray[Any]]) -> None:
    """Writes a file of MATLAB 5, atomically."""
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(buffer, dict(variables))
    write_bytes(path, buffer.getvalue())


def cell_array(values: Sequence[Any]) -> NDArray[Any]:
    """Returns a list as a MATLAB cell array, shape (1, N)."""
    cells = np.empty((1, len(values)), dtype=object)
    cells[0] = values
    return cells


def car_list(rows: Sequence[tuple[Any, Any]]) -> NDArray[Any]:
    """Returns labels and file names in the format of Stanford Cars: structures with the class as fifth field."""
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    structs = np.zeros((1, len(rows)), dtype=[(name, object) for name in fields])
    for index, (label, name) in enumerate(rows):
        structs[0, index] = (1, 2, 3, 4, label, name)
    return structs


# ---------------------------------------------------------------- Parquet


def write_hub_parquet(
    path: Path,
    images: NDArray[np.uint8],
    labels: Mapping[str, NDArray[np.int64]],
    *,
    class_names: Sequence[str],
    image_column: str = "image",
) -> None:
    """Writes images, as PNG, with columns of labels as Parquet of the Hub, atomically.

    Args:
        path: The file to write.
        images: Shape (N, H, W, 3).
        labels: Name of each column of labels to its values, shape (N,), 0 to K-1.
        class_names: The K names, the same for all columns.
        image_column: Name of the column of images.
    """
    import pyarrow as pa
    from datasets import ClassLabel, Features
    from datasets import Image as ImageFeature

    from labelsieve.data.sources.in_memory import read_memory

    classes = ClassLabel(names=list(class_names))
    schema = Features({image_column: ImageFeature(), **dict.fromkeys(labels, classes)}).arrow_schema
    columns = {image_column: read_memory(images).data.column("image"), **{k: pa.array(v) for k, v in labels.items()}}
    write_parquet(path, pa.table(columns, schema=schema))
