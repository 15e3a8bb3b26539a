"""Windows: grids of crops of each image, in which small objects are large."""

from __future__ import annotations

import numpy as np

from labelsieve.data.boxes import Boxes
from labelsieve.data.images import Images


def in_windows(images: Images, finest: int) -> Images:
    """Returns all windows of all images, each as an image of its own.

    A grid of g has g² windows of 1/g of each side, for g = 2, 3, ... An object on a border of one grid is mostly
    complete in another.

    Args:
        images: N images.
        finest: The last grid, at least 2.

    Returns:
        Rows of 4 + 9 + ... windows of each image, one after the other, so that it is decoded once for all of them.
        Their ids are those of the images, so that several rows have the same id.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> pixels = np.zeros((2, 60, 90, 3), dtype=np.uint8)
        >>> windows = in_windows(ls.load_tags(pixels, tags=[["cat", "dog"], []]), 3)
        >>> len(windows), windows.open(0).size, windows.open(12).size
        (26, (45, 30), (30, 20))
    """
    corners = [
        (left / grid, top / grid, 1 / grid, 1 / grid)
        for grid in range(2, finest + 1)
        for top in range(grid)
        for left in range(grid)
    ]
    rows = np.repeat(np.arange(len(images)), len(corners))
    sides = np.tile(np.array(corners, dtype=np.float64).reshape(-1, 4), (len(images), 1))
    return Images(
        dataset=images.dataset.select(rows),
        ids=tuple(images.ids[row] for row in rows.tolist()),
        contents=images.contents[rows],
        ranges=images.ranges,
        boxes=Boxes(sides=sides, image_of=rows, is_relative=True, margin=0.0),
        as_pipeline=images.as_pipeline,
    )
