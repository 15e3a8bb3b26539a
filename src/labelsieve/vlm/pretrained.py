"""Reads the parts of a model from a folder or the Hub, with a clear message for each error.

Code in a model folder is never run, and pickles with anything else than tensors are not loaded.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labelsieve.core.errors import ModelError, listed, setting, shown
from labelsieve.core.provenance import fingerprint
from labelsieve.data.sources.file_kinds import POINTER_SIZE, is_pointer

CONFIGURATION = "configuration (config.json)"
PROCESSOR = "image processor (preprocessor_config.json)"

# Messages of the loaders, and explanations of them.
_EXPLANATIONS = (
    ("is not a valid JSON", "a file of it is no JSON"),
    ("Expecting ", "a file of it is no JSON"),
    ("Error no file named", "there are none, in model.safetensors or pytorch_model.bin"),
    ("Can't load image processor", "there is none that can be read"),
    ("validation error for validator", "its sizes do not go together"),
    ("alloc_cpu", "its config.json asks for more memory than there is"),
    ("modulo by zero", "its config.json has a size of 0"),
)
# Entries of a configuration that do not change the output of the model in float32.
_IRRELEVANT = {"transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype"}


def loader_options(name: str) -> dict[str, Any]:
    """Returns the keyword arguments of the loaders: they never run code of the model, and do not ask to."""
    if name and Path(name).is_dir():
        return {"trust_remote_code": False, "local_files_only": True}
    if not name or Path(name).exists() or name.startswith((".", "/", "~", os.sep)) or name.count("/") > 1:
        raise ModelError(f'expected a model folder or a Hub id, "{shown(name)}" is neither; check {setting("model")}')
    return {"trust_remote_code": False, "local_files_only": not is_hub_reachable()}


def is_hub_reachable() -> bool:
    """Returns whether the Hub responds; without this check the loaders would retry each file for half a minute."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # requests, httpx and the offline mode each raise their own
        return False
    return True


def read_part(what: str, name: str, load: Callable[..., Any], options: dict[str, Any]) -> Any:
    """Calls a loader and converts its errors to one line that names the part and the model.

    Args:
        what: What the message calls the part, such as `CONFIGURATION`.
        name: Hub id or local folder.
        load: Takes the name and the options.
        options: Keyword arguments, with `local_files_only` among them; see :func:`loader_options`.
    """
    try:
        return load(name, **options)
    except Exception as error:  # the loaders pass on any error of their parsers
        if Path(name).is_dir():
            check_no_lfs_pointers(name)
            raise ModelError(f"{name} has no usable {what}: {error_summary(error)}") from error
        if options["local_files_only"]:
            raise ModelError(
                f"the Hub cannot be reached, and this machine has no {what} of {name}; "
                "check the network and the id, or give a local folder"
            ) from error
        raise ModelError(
            f"could not get the {what} of {name} from the Hub: {error_summary(error)}; "
            "check the id and the network, or give a local folder"
        ) from error


def raw_configuration(name: str, **options: Any) -> dict[str, Any]:
    """Loads config.json, also of models that `transformers` does not know."""
    import transformers

    return dict(transformers.PretrainedConfig.get_config_dict(name, **options)[0])


def read_weights(
    name: str,
    architecture: Any,
    config: Any,
    options: dict[str, Any],
    *,
    state: dict[str, Tensor] | None = None,
    new: Callable[[Any], Sequence[str]] = lambda _model: (),
) -> Any:
    """Builds a model of `transformers` in float32 and fills it with the weights of a folder or Hub id.

    Args:
        name: Folder or Hub id, also for messages.
        architecture: The class of the model.
        config: Its configuration.
        options: From :func:`loader_options`.
        state: Weights that are already loaded, with the names of `transformers`; then no file is read.
        new: Given the model, returns the names of weights that are not checked, such as those of a new head.

    Raises:
        ModelError: The weights are missing, incomplete, of other shapes than the configuration says, or not finite.
    """
    extra = {} if state is None else {"state_dict": state, "add_pooling_layer": False}
    with concise_weight_errors(name), quiet_loading():
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
    mismatched = (key for key, *_shapes in info["mismatched_keys"])
    check_weights(name, model, info["missing_keys"], mismatched, new=new(model))
    return model


@contextmanager
def concise_weight_errors(name: str, *, folder: Path | None = None) -> Iterator[None]:
    """Converts the errors of loading weights within a block to one line.

    Args:
        name: Name of the model, for messages.
        folder: Folder of its files, if it is not the name.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        check_no_lfs_pointers(folder or name)
        raise ModelError(
            f"the weights of {name} are a pickle that holds more than tensors, or broken, and are not loaded; "
            "get a model with safetensors"
        ) from error
    except Exception as error:  # safetensors, torch and the Hub each raise their own
        check_no_lfs_pointers(folder or name)
        # its messages are about headers and metadata
        is_damaged = type(error).__name__ == "SafetensorError"
        reason = "a file of them is cut short or damaged" if is_damaged else error_summary(error)
        raise ModelError(f"the weights of {name} cannot be loaded: {reason}; get them again") from error


def check_no_lfs_pointers(folder: str | Path) -> None:
    """Checks that a folder has no pointer files of Git LFS.

    A clone without Git LFS has a short text file in place of each large file.

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
    """Disables the progress bars and warnings of `transformers` within a block."""
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
    name: str, model: torch.nn.Module, missing: Iterable[str], mismatched: Iterable[str], *, new: Sequence[str] = ()
) -> None:
    """Checks that every weight was loaded, has the right shape and is finite.

    Args:
        name: Name of the model, for messages.
        model: The model with its weights.
        missing: Names of the weights that were not loaded.
        mismatched: Names of the weights that have another shape in the file.
        new: Names of weights that are not checked, such as those of a new head.
    """
    absent, wrong_shape = sorted({*missing} - {*new}), sorted({*mismatched} - {*new})
    if absent:
        raise ModelError(
            f"the weights of {name} are incomplete, {len(absent)} missing such as {absent[0]}; get them again"
        )
    if wrong_shape:
        raise ModelError(
            f"{len(wrong_shape)} weights of {name} have another shape than its config.json says, such as "
            f"{wrong_shape[0]}; get both again"
        )
    if not all(bool(torch.isfinite(value).all()) for key, value in model.state_dict().items() if key not in new):
        raise ModelError(f"the weights of {name} hold values that are not finite; get them again")


def error_summary(error: BaseException) -> str:
    """Returns the first sentence of a message: the rest is usually advice on calling the loaders.

    Common messages are replaced by explanations.
    """
    text = str(error).strip()
    if isinstance(error, KeyError):
        return f"{shown(text.strip(chr(39)))} is missing or unknown"
    if explanation := next((words for raw, words in _EXPLANATIONS if raw in text), ""):
        return explanation
    lines = text.splitlines()
    return shown(lines[0].split(". ")[0].rstrip(" .:")) if lines else type(error).__name__


def model_fingerprint(model: torch.nn.Module, config: dict[str, Any], processor: str) -> str:
    """Returns the fingerprint of configuration, weights and image processing.

    Args:
        model: Has the weights.
        config: Its configuration; entries that do not change the output do not count.
        processor: Settings of the image processor, as JSON.
    """
    weights = [value.detach().cpu().numpy() for _, value in sorted(model.state_dict().items())]
    return fingerprint(relevant(config), processor, *weights)


def relevant(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a configuration without entries that do not change the output of the model."""
    return {
        key: relevant(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _IRRELEVANT
    }
