"""Reading the parts of a model from a folder or the Hub, with a clear line for whatever may be wrong with them.

No code that a model carries is ever run, and no pickle that holds more than tensors is opened.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from labelsieve.core.errors import ModelError, listed, shown
from labelsieve.core.provenance import fingerprint
from labelsieve.data.sources.file_kinds import POINTER_SIZE, is_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labelsieve.vlm.base import VisionLanguageModel

CONFIGURATION = "configuration (config.json)"
PROCESSOR = "image processor (preprocessor_config.json)"

# What the loaders say when a model folder is not as it should be.
_PLAINLY = (
    ("is not a valid JSON", "a file of it is no JSON"),
    ("Expecting ", "a file of it is no JSON"),
    ("Error no file named", "there are none, in model.safetensors or pytorch_model.bin"),
    ("Can't load image processor", "there is none that can be read"),
    ("validation error for validator", "its sizes do not go together"),
    ("alloc_cpu", "its config.json asks for more memory than there is"),
    ("modulo by zero", "its config.json has a size of 0"),
)
# What a configuration holds that makes no difference to what the model computes in float32.
_IRRELEVANT = {"transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype"}


def loader_options(name: str) -> dict[str, Any]:
    """Returns how the loaders are called: code out of the model never runs, and nobody asks whether it may."""
    if name and Path(name).is_dir():
        return {"trust_remote_code": False, "local_files_only": True}
    if not name or Path(name).exists() or name.startswith((".", "/", "~", os.sep)) or name.count("/") > 1:
        raise ModelError(f'expected a model folder or a Hub id, "{shown(name)}" is neither; check --model')
    return {"trust_remote_code": False, "local_files_only": not reaches_hub()}


def reaches_hub() -> bool:
    """Tries once, for the loaders try each of their files for half a minute before they turn to what is on the disk."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # requests, httpx and the offline mode each raise their own
        return False
    return True


def read_part(what: str, name: str, load: Callable[..., Any], options: dict[str, Any]) -> Any:
    """Calls a loader and turns whatever it raises into one line that says which part of which model it was about."""
    try:
        return load(name, **options)
    except Exception as error:  # the loaders raise whatever their parsers raise
        if Path(name).is_dir():
            refuse_pointers(name)
            raise ModelError(f"{name} has no usable {what}: {first_line(error)}") from error
        if options["local_files_only"]:
            raise ModelError(
                f"the Hub cannot be reached, and this machine has no {what} of {name}; "
                "check the network and the id, or give a local folder"
            ) from error
        raise ModelError(
            f"could not get the {what} of {name} from the Hub: {first_line(error)}; "
            "check the id and the network, or give a local folder"
        ) from error


def raw_configuration(name: str, **options: Any) -> dict[str, Any]:
    """Loads what stands in config.json, whether or not `transformers` knows a model of that kind."""
    import transformers

    return dict(transformers.PretrainedConfig.get_config_dict(name, **options)[0])


def read_weights(
    name: str, architecture: Any, config: Any, options: dict[str, Any], *, state: dict[str, Tensor] | None = None
) -> Any:
    """Builds a model of `transformers` in float32 and fills it with the weights of a folder or Hub id.

    Args:
        name: Where the weights are, and what messages call the model.
        architecture: The class of the model.
        config: Its configuration.
        options: From :func:`loader_options`.
        state: Weights that were read already, under the names that `transformers` gives them; nothing is read then.

    Raises:
        ModelError: The weights are missing, incomplete, of other shapes than the configuration says, or not finite.
    """
    extra = {} if state is None else {"state_dict": state, "add_pooling_layer": False}
    with one_line_about_weights(name), quiet_loading():
        model, info = architecture.from_pretrained(
            name if state is None else None,
            config=config,
            dtype=torch.float32,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, in one line
            **options,
            **extra,
        )
    check_weights(name, model, info["missing_keys"], (key for key, *_shapes in info["mismatched_keys"]))
    return model


@contextmanager
def one_line_about_weights(name: str, *, folder: Path | None = None) -> Iterator[None]:
    """Turns whatever the readers of weights raise within a block into one line.

    Args:
        name: What messages call the model.
        folder: Where its files are, if its name does not say so.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        refuse_pointers(folder or name)
        raise ModelError(
            f"the weights of {name} are a pickle that holds more than tensors, or broken, and are not loaded; "
            "get a model with safetensors"
        ) from error
    except Exception as error:  # safetensors, torch and the Hub each raise their own
        refuse_pointers(folder or name)
        # which speaks of headers and metadata
        cut = type(error).__name__ == "SafetensorError"
        why = "a file of them is cut short or damaged" if cut else first_line(error)
        raise ModelError(f"the weights of {name} cannot be loaded: {why}; get them again") from error


def refuse_pointers(folder: str | Path) -> None:
    """Says of files that could not be read that Git left them out, if that is so.

    A clone without Git LFS, or a clone that skipped it, holds a few lines of text in the place of each large file.

    Raises:
        ModelError: There are such files in the folder.
    """
    files = [path for path in sorted(Path(folder).glob("*")) if path.is_file() and path.stat().st_size < POINTER_SIZE]
    pointers = [path.name for path in files if is_pointer(path.read_bytes())]
    if pointers:
        raise ModelError(
            f"{folder} holds only pointers of Git LFS in the place of {listed(pointers)}; "
            "get the files themselves with: git lfs pull"
        )


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Takes away the progress bars and reports of `transformers`: what matters is reported in one line of our own."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def check_weights(
    name: str, model: torch.nn.Module, missing: Iterable[str], misshapen: Iterable[str], *, new: Sequence[str] = ()
) -> None:
    """Makes sure that every weight came, in its shape, and is finite; those in `new` are not expected to come."""
    lacking, other = sorted({*missing} - {*new}), sorted({*misshapen} - {*new})
    if lacking:
        raise ModelError(
            f"the weights of {name} are incomplete, {len(lacking)} missing such as {lacking[0]}; get them again"
        )
    if other:
        raise ModelError(
            f"{len(other)} weights of {name} have another shape than its config.json says, such as {other[0]}; "
            "get both again"
        )
    if not all(bool(torch.isfinite(value).all()) for key, value in model.state_dict().items() if key not in new):
        raise ModelError(f"the weights of {name} hold values that are not finite; get them again")


def check_processor(vlm: VisionLanguageModel) -> None:
    """Makes sure that the image processor gives images of the size that the model takes."""
    expected = (1, 3, vlm.image_size, vlm.image_size)
    try:
        found: Any = tuple(vlm.pixels([Image.new("RGB", (40, 30))]).shape)
    except Exception as error:  # whatever a processor with odd settings raises
        found = first_line(error)
    if found != expected:
        raise ModelError(
            f"expected the image processor of {vlm.name} to give pixels of shape {expected}, got {found}; "
            "copy the preprocessor_config.json of the model"
        )


def first_line(error: BaseException) -> str:
    """Returns the first sentence: what follows in the messages of the loaders is advice on calling them.

    What they often say is said in plain words.
    """
    text = str(error).strip()
    if isinstance(error, KeyError):
        return f"{shown(text.strip(chr(39)))} is missing or unknown"
    if plain := next((words for raw, words in _PLAINLY if raw in text), ""):
        return plain
    lines = text.splitlines()
    return shown(lines[0].split(". ")[0].rstrip(" .:")) if lines else type(error).__name__


def model_fingerprint(model: torch.nn.Module, config: dict[str, Any], processor: str) -> str:
    """Returns the fingerprint of configuration, weights and image processing."""
    weights = [value.detach().cpu().numpy() for _, value in sorted(model.state_dict().items())]
    return fingerprint(relevant(config), processor, *weights)


def relevant(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a configuration without what makes no difference to what the model computes."""
    return {
        key: relevant(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _IRRELEVANT
    }
