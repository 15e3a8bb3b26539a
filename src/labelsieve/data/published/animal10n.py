"""ANIMAL-10N: five pairs of animals that look alike, labelled by people."""

from __future__ import annotations

from pathlib import Path

from labelsieve.data.published.layout import Labels, PublishedSplit, home_of, images_in, indices

_FOLDERS = {"train": "training", "test": "testing"}
_NAMES = (
    *("cat", "lynx", "wolf", "coyote", "cheetah"),
    *("jaguar", "chimpanzee", "orangutan", "hamster", "guinea pig"),
)


def read_animal10n(path: Path, split: str) -> PublishedSplit:
    """Reads ANIMAL-10N. The names of its files start with the label: `3_12345.jpg`."""
    folder = _FOLDERS[split]
    home = home_of(path, title="ANIMAL-10N (raw_image.zip, unpacked)", files=[f"{folder}/"], inside=["raw_image"])
    images = images_in(home / folder, home=home)
    labels = [Path(image).name.partition("_")[0] for image in images]
    values = indices(labels, names=_NAMES, where=f"the names of the files in {home / folder}")
    return PublishedSplit(folder=home, images=images, labels={"label": Labels(values=values, names=_NAMES)})
