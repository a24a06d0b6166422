"""Public checkpoints in transformers' layout, from the hub or a folder; errors say what to do.

A checkpoint is a folder with ``config.json`` and ``model.safetensors`` (or its shards and their index), as
``save_pretrained`` writes it and the hub stores it. ``pytorch_model.bin`` is taken where there is no
safetensors file, and only its tensors are read (``weights_only``).
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from ppd_env.errors import ConfigError
from ppd_env.uris import Uri

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG = "config.json"
_SAFE = ("*.safetensors", "*.safetensors.index.json")
_PICKLED = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def load_pretrained(uri: Uri, classes: Mapping[str, str], unused: Iterable[str] = ()) -> PreTrainedModel:
    """Load a frozen model of transformers, on the CPU in float32.

    Args:
        uri: ``scheme:OWNER/NAME`` on the hub, or ``scheme:/path`` of a folder.
        classes: ``model_type`` of ``config.json`` -> name of the class in transformers.
        unused: Endings of weights that may be missing because nothing of ours reads them.

    Returns:
        The model; ``config.name_or_path`` is the folder it was read from.

    Raises:
        ConfigError: A package, a file or a permission is missing, or the weights do not fit.
    """
    transformers = _transformers(uri)
    folder = checkpoint_folder(uri)
    kind = _model_type(uri, folder)
    if kind not in classes:
        known = " or ".join(repr(name) for name in classes)
        raise ConfigError(
            f"{uri.text!r}: {folder / CONFIG} describes a model of type {kind!r}, but {uri.scheme!r} "
            f"takes {known}."
        )
    try:
        model_class = getattr(transformers, classes[kind])
    except (AttributeError, ImportError):
        raise ConfigError(
            f"{uri.text!r}: transformers {transformers.__version__} has no {classes[kind]}; "
            "pip install --upgrade transformers."
        ) from None
    return _read_weights(uri, folder, model_class, tuple(unused))


def _transformers(uri: Uri) -> Any:
    """Import transformers, or say how to install it."""
    try:
        import transformers
    except ImportError:
        raise ConfigError(
            f"{uri.text!r} needs the package transformers: pip install transformers (or, with all "
            "segmenters, pip install 'point-prompt-defender[sam]')."
        ) from None
    return transformers


def checkpoint_folder(uri: Uri) -> Path:
    """Return the folder of a checkpoint, downloading it from the hub where the URI names no folder.

    Args:
        uri: ``scheme:OWNER/NAME`` on the hub, or ``scheme:/path``, ``scheme:./path`` or ``scheme:~/path``.

    Returns:
        The folder; ``config.json`` lies in it.

    Raises:
        ConfigError: There is no such folder or model, or it cannot be downloaded.
    """
    uri.require_keys(())
    if not uri.path:
        raise ConfigError(
            f"{uri.text!r}: name a model on the hub, as in {uri.scheme}:OWNER/NAME, or a folder, as in "
            f"{uri.scheme}:/path."
        )
    folder = Path(uri.path).expanduser()
    if not folder.is_dir():
        if uri.path.startswith(("/", ".", "~")) or not _HUB_NAME.fullmatch(uri.path):
            raise ConfigError(
                f"{uri.text!r}: {folder} is not a folder; name one that holds {CONFIG} and "
                "model.safetensors, or a model on the hub as OWNER/NAME."
            )
        folder = _download(uri)
    if not (folder / CONFIG).is_file():
        raise ConfigError(
            f"{uri.text!r}: {folder} holds no {CONFIG}; it must hold {CONFIG} and model.safetensors, as "
            "save_pretrained writes them."
        )
    return folder


def _download(uri: Uri) -> Path:
    """Return the local copy of a model on the hub, downloading what is missing of it."""
    from huggingface_hub import snapshot_download

    name = uri.path
    folder_way = f"name a folder with {CONFIG} and model.safetensors, as in {uri.scheme}:/path"
    remedy = (
        f"With a network, run `hf download {name} --local-dir FOLDER`, then name that folder, as in "
        f"{uri.scheme}:/path/to/FOLDER"
    )
    with hub_errors(name, "downloaded", remedy, called=uri.text, gated=folder_way):
        folder = Path(snapshot_download(name, allow_patterns=["*config.json", *_SAFE]))
        if not _has_any(folder, _SAFE):
            folder = Path(snapshot_download(name, allow_patterns=["*config.json", *_PICKLED]))
        return folder


@contextmanager
def hub_errors(
    name: str, done: str, remedy: str, *, called: str | None = None, gated: str = "name a local folder"
) -> Iterator[None]:
    """Turn what the hub's library raises into sentences.

    Args:
        name: ``OWNER/NAME`` of the repository.
        done: What was to be done with it: ``"downloaded"``, ``"uploaded"``.
        remedy: What to do where the hub cannot be reached.
        called: What the user named; None: the repository.
        gated: What to do instead of asking for access.

    Raises:
        ConfigError: In place of any error of the hub's library, the network or the disk.
    """
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    called = called or name
    try:
        yield
    except GatedRepoError:
        raise ConfigError(
            f"{called!r}: the weights are gated. Ask for access at https://huggingface.co/{name}, make a "
            "token at https://huggingface.co/settings/tokens and log in with `hf auth login` (or set "
            f"HF_TOKEN); or {gated}."
        ) from None
    except RepositoryNotFoundError:
        raise ConfigError(
            f"{called!r}: the hub has no model {name!r} that you may see; check the name, or log in with "
            "`hf auth login` where it is private."
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = (
            str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        )
        raise ConfigError(
            f"{called!r}: {name} cannot be {done} ({reason}). {remedy[0].upper()}{remedy[1:]}."
        ) from None


def _has_any(folder: Path, patterns: Iterable[str]) -> bool:
    return any(next(folder.glob(pattern), None) is not None for pattern in patterns)


def _model_type(uri: Uri, folder: Path) -> str:
    """Return the ``model_type`` of a folder's ``config.json``."""
    try:
        return str(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{uri.text!r}: {folder / CONFIG} cannot be read ({error!r}); download the model again."
        ) from None


def _read_weights(uri: Uri, folder: Path, model_class: Any, unused: tuple[str, ...]) -> PreTrainedModel:
    """Read a model from its folder and refuse it unless every weight was found."""
    safe = _has_any(folder, _SAFE)
    if not safe and not _has_any(folder, _PICKLED):
        raise ConfigError(
            f"{uri.text!r}: {folder} holds no model.safetensors (nor pytorch_model.bin); put the weights "
            f"beside {CONFIG}."
        )
    try:
        model, facts = model_class.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=safe,
            weights_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (
        OSError,
        SafetensorError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        pickle.UnpicklingError,
    ) as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise ConfigError(
            f"{uri.text!r}: the weights in {folder} cannot be used ({reason}); download them again."
        ) from error
    lost = sorted(name for name in facts["missing_keys"] if not name.endswith(unused or ("\0",)))
    if lost:
        raise ConfigError(
            f"{uri.text!r}: the weights in {folder} are not of this architecture: {lost[0]!r} is missing "
            f"({len(lost)} in all)."
        )
    return model.eval().requires_grad_(False)


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Hash weights, whatever file they came from.

    Args:
        state: Tensors by name.

    Returns:
        16 hexadecimal digits of names, types, shapes and values.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
