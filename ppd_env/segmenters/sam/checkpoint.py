"""``checkpoint:vit_h:/path.pth``: the files Meta published, with the image encoder of segment-anything.

Only the package's ``modeling`` folder is imported: its top level wants torchvision, which nothing here needs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import pickle
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ppd_env.errors import ConfigError
from ppd_env.segmenters.sam.config import DecoderConfig
from ppd_env.segmenters.sam.decoder import MaskDecoder
from ppd_env.segmenters.sam.frames import Letterbox
from ppd_env.segmenters.sam.options import split_options
from ppd_env.segmenters.sam.segmenter import CODE_VERSION, SamSegmenter
from ppd_env.segmenters.sam.weights import fill
from ppd_env.uris import Uri

PUBLISHED_AT = "https://dl.fbaipublicfiles.com/segment_anything/"
_ENCODER = "image_encoder."
_MODULE = "_segment_anything_modeling"
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Architecture:
    """A model of the segment-anything package.

    Args:
        width: Channels of the vision transformer.
        depth: Its layers.
        heads: Its attention heads.
        global_layers: Its layers with global attention; the others attend in windows.
        window: Side of a window in patches.
        file: Name of the published file; empty where none is.
        sha256: Of the published file, as listed by micro-sam (``micro_sam/util.py``) among others.
        decoder: Sizes of the decoder, input and embedding.
    """

    width: int
    depth: int
    heads: int
    global_layers: tuple[int, ...]
    window: int = 14
    file: str = ""
    sha256: str = ""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)


ARCHITECTURES = {
    "vit_b": Architecture(
        768,
        12,
        12,
        (2, 5, 8, 11),
        file="sam_vit_b_01ec64.pth",
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": Architecture(
        1024,
        24,
        16,
        (5, 11, 17, 23),
        file="sam_vit_l_0b3195.pth",
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": Architecture(
        1280,
        32,
        16,
        (7, 15, 23, 31),
        file="sam_vit_h_4b8939.pth",
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
}
"""Name in the URI -> model; add to it to load an architecture of your own."""


class _OfficialEncoder(nn.Module):
    """The package's image encoder: pixels to ``image`` (B, dim, h, h)."""

    def __init__(self, vision: nn.Module) -> None:
        super().__init__()
        self.vision = vision

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"image": self.vision(pixels)}


def load_checkpoint(uri: Uri, device: torch.device) -> SamSegmenter:
    """Load a file in the layout of the segment-anything package.

    Args:
        uri: ``checkpoint:vit_b:/path.pth``, ``checkpoint:vit_l:...`` or ``checkpoint:vit_h:...``;
            behind a ``?`` the keys of ``DecoderOptions``.
        device: Where it shall compute.

    Returns:
        The segmenter. A file other than the published one is a warning, as it may be a fine-tuned one.

    Raises:
        ConfigError: The package or the file is missing, or the file is truncated or of another architecture.
    """
    uri, options = split_options(uri, device)
    name, architecture, path = _named(uri)
    modeling = official_modeling(uri)
    digest = _file_digest(path)
    if architecture.sha256 and digest != architecture.sha256:
        warnings.warn(
            f"{path} is not the file Meta published as {architecture.file} (its SHA-256 is {digest}, not "
            f"{architecture.sha256}). Unless it is a fine-tuned one, download "
            f"{PUBLISHED_AT}{architecture.file} again.",
            stacklevel=2,
        )
    state = _read(path, architecture)
    encoder = _encoder(modeling, architecture)
    _fill_encoder(encoder, state, name, path)
    decoder = MaskDecoder(architecture.decoder)
    fill(decoder, state, str(path))
    facts = json.dumps([asdict(architecture), digest], sort_keys=True)
    signature = f"checkpoint-{CODE_VERSION}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
    frame = Letterbox(architecture.decoder.image_size)
    return SamSegmenter(_OfficialEncoder(encoder), decoder, frame, uri.text, signature, device, options)


def official_modeling(uri: Uri) -> ModuleType:
    """Import the ``modeling`` folder of segment-anything by itself.

    Args:
        uri: Who asks, for the error.

    Returns:
        The module that holds ``ImageEncoderViT`` and the rest of the model.

    Raises:
        ConfigError: The package is not installed.
    """
    if _MODULE in sys.modules:
        return sys.modules[_MODULE]
    package = importlib.util.find_spec("segment_anything")
    if package is None or not package.submodule_search_locations:
        raise ConfigError(
            f"{uri.text!r} needs the package segment-anything: pip install segment-anything (it is part of "
            "the extra 'sam': pip install 'point-prompt-defender[sam]')."
        )
    folder = Path(package.submodule_search_locations[0]) / "modeling"
    spec = importlib.util.spec_from_file_location(
        _MODULE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[_MODULE] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_MODULE]
        raise
    return module


def _named(uri: Uri) -> tuple[str, Architecture, Path]:
    """Return what a URI names: an architecture and an existing file."""
    name, _, file = uri.path.partition(":")
    if name not in ARCHITECTURES or not file:
        known = ", ".join(ARCHITECTURES)
        raise ConfigError(
            f"{uri.text!r}: write checkpoint:NAME:/path.pth, where NAME is one of {known}, the model whose "
            "weights the file holds."
        )
    architecture, path = ARCHITECTURES[name], Path(file).expanduser()
    if not path.is_file():
        remedy = f"; download it from {PUBLISHED_AT}{architecture.file}" if architecture.file else ""
        raise ConfigError(f"{uri.text!r}: there is no file {path}{remedy}.")
    return name, architecture, path


def _file_digest(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    digest, size = hashlib.sha256(), path.stat().st_size
    with (
        path.open("rb") as file,
        tqdm(
            total=size, desc=f"Checking {path.name}", unit="B", unit_scale=True, delay=2, leave=False
        ) as bar,
    ):
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _read(path: Path, architecture: Architecture) -> dict[str, Tensor]:
    """Read a state dict, tensors only."""
    remedy = f"; download {PUBLISHED_AT}{architecture.file} again" if architecture.file else ""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ConfigError(
            f"{path}: not a readable checkpoint, or a truncated one ({reason}){remedy}."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(
            f"{path}: holds no plain state dict of tensors, as segment-anything saves it{remedy}."
        )
    return state


def _encoder(modeling: ModuleType, architecture: Architecture) -> nn.Module:
    """Build the package's image encoder without memory for its parameters."""
    sizes = architecture.decoder
    with torch.device("meta"):
        return modeling.ImageEncoderViT(
            img_size=sizes.image_size,
            patch_size=sizes.image_size // sizes.cells,
            embed_dim=architecture.width,
            depth=architecture.depth,
            num_heads=architecture.heads,
            mlp_ratio=4,
            out_chans=sizes.dim,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=architecture.window,
            global_attn_indexes=architecture.global_layers,
        )


def _fill_encoder(encoder: nn.Module, state: Mapping[str, Tensor], name: str, path: Path) -> None:
    """Give the encoder its parameters, or say which ones do not fit."""
    found = {
        key.removeprefix(_ENCODER): value.float() for key, value in state.items() if key.startswith(_ENCODER)
    }
    wanted = encoder.state_dict()
    wrong = sorted(found.keys() ^ wanted.keys())
    wrong += sorted(key for key in found.keys() & wanted.keys() if found[key].shape != wanted[key].shape)
    if wrong:
        raise ConfigError(
            f"{path}: not the weights of {name}: {_ENCODER + wrong[0]!r} does not fit{_likely(found, name)}."
        )
    encoder.load_state_dict(found, assign=True)


def _likely(found: Mapping[str, Tensor], name: str) -> str:
    """Say which known architecture a file seems to hold."""
    width = found["pos_embed"].shape[-1] if "pos_embed" in found else None
    others = [other for other, made in ARCHITECTURES.items() if made.width == width and other != name]
    return f"; it looks like {others[0]}" if others else ""
