"""The result of phase 2: a standard classifier with its record and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from labelsieve.core.errors import RunError
from labelsieve.core.files import write_json, write_text
from labelsieve.core.output_folders import new_folder
from labelsieve.core.quantities import percent, points, thousands
from labelsieve.core.text import escape_markdown
from labelsieve.data.input.rgb import source_code
from labelsieve.finetune.backbones import Backbone
from labelsieve.finetune.settings import check_saves
from labelsieve.metrics import CLASSIFICATION, TAG_CLASSIFICATION, TAG_DECISIONS
from labelsieve.records import is_tag_record
from labelsieve.verdicts import METRICS_JSON
from labelsieve.vlm.names import OPEN_CLIP, without_folders
from labelsieve.vlm.pretrained import quiet_loading

ADAPT_RECORD, CARD = "adapt.json", "README.md"


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapted:
    """A trained classifier.

    Attributes:
        backbone: The model with its processor.
        class_names: The K names, in the order of the logits.
        record: Data, verdicts, backbone, settings, versions and history. Saved as `adapt.json`.
        metrics: Accuracies, see :func:`labelsieve.metrics.measure`; for tags, see
            :func:`labelsieve.tag_metrics.measure_tags`. Saved as `metrics.json`.

    Example:
        >>> import labelsieve as ls
        >>> from labelsieve.demo import MINI_CLIP
        >>> from labelsieve.demo.sketches import CLASS_NAMES, sketches
        >>> drawn, labels = sketches(64, seed=0)
        >>> images = ls.load_images(drawn, labels=labels, class_names=CLASS_NAMES)
        >>> images = ls.inject(images, kind="symmetric", rate=0.25)
        >>> vlm = ls.load_vlm(MINI_CLIP)
        >>> verdicts = ls.scan(images, vlm, detector=ls.Joint())
        >>> settings = ls.Adaptation(tune="linear", epochs=1, min_steps=0)
        >>> adapted = ls.adapt(images, verdicts, backbone=MINI_CLIP, settings=settings)
        >>> adapted.class_names[:2], len(adapted.history)
        (('bird', 'boat'), 1)
    """

    backbone: Backbone
    class_names: tuple[str, ...]
    record: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def model(self) -> Any:
        """The `transformers` model, in evaluation mode; visual prompts or adapters stay attached to it."""
        return self.backbone.model

    @property
    def processor(self) -> Any:
        """The image processor of the model."""
        return self.backbone.processor

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """One record for each epoch: learning rates, loss, accuracies."""
        return self.record["history"]  # type: ignore[no-any-return]

    def save(self, folder: str | Path) -> Path:
        """Writes a folder that the Auto classes of `transformers` load, with model card, metrics and record.

        It is written atomically, and replaces an existing folder.

        Raises:
            RunError: The folder cannot be written to, or the disk is full.
            SettingsError: A module is attached that a standard model cannot contain.
        """
        check_saves(self.record["settings"]["tune"])
        folder = Path(folder)
        try:
            with new_folder(folder) as temporary, quiet_loading():
                self.model.save_pretrained(temporary)
                self.processor.save_pretrained(temporary)
                for weights in temporary.glob("*.safetensors"):  # they are created with access for their owner only
                    weights.chmod((temporary / "config.json").stat().st_mode)
                write_text(temporary / CARD, model_card(self))
                write_json(temporary / METRICS_JSON, self.metrics)
                # other files in the folder belong to the user
                files = sorted(path.name for path in temporary.iterdir())
                write_json(temporary / ADAPT_RECORD, {**self.record, "files": files})
        except SafetensorError as error:
            raise RunError(f"could not write the weights to {folder}: {error}; free some space") from error
        return folder


def model_card(adapted: Adapted) -> str:
    """Returns the model card: what the model is, what it was trained on and how, and how well it does."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("labelsieve", "finetune"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,  # Markdown, not HTML: user data passes the filter `plain`
    )
    environment.filters |= {"percent": percent, "points": points, "thousands": thousands, "plain": escape_markdown}
    record = adapted.record
    return environment.get_template("card.md.jinja").render(
        record=record,
        metrics=adapted.metrics,
        classification=CLASSIFICATION,
        tag_classification=TAG_CLASSIFICATION,
        decisions=TAG_DECISIONS,
        conversion=source_code(record["converted"]["ranges"]),
        class_names=adapted.class_names,
        has_tags=is_tag_record(record),
        validation=adapted.metrics["validation_map" if is_tag_record(record) else "validation_accuracy"],
        source=without_folders(record["data"]["source"]),
        vlm=without_folders(record["verdicts"]["model"] or "a model without a name"),
        backbone=without_folders(record["backbone"]["name"]),
        on_hub=not (Path(record["backbone"]["name"]).exists() or record["backbone"]["name"].startswith(OPEN_CLIP)),
    )
