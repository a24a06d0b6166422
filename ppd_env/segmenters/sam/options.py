"""How a mask decoder computes, as the keys of a segmenter's URI say."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace

import torch

from ppd_env.errors import ConfigError
from ppd_env.uris import Uri

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
KEEP = 2048
"""MiB that are kept on a CPU unless the URI says otherwise."""

_SHARE_OF_GPU = 4
"""A GPU keeps up to one part in so many of its memory."""


@dataclass(frozen=True)
class DecoderOptions:
    """How masks are decoded.

    Args:
        dtype: ``"float32"``, or ``"bfloat16"``, which is faster on hardware made for it and moves the edges
            of masks a little.
        keep: MiB of memory for what depends on a scene alone; 16 MiB a scene with the published sizes in
            float32, 8 in bfloat16. Scenes beyond it cost about half a decode more in every step; on a GPU,
            where all scenes of a bank are kept or none, about a third. 2048, or a quarter of a GPU's memory.
        compile: Compile the decoder and, on a GPU, record its kernels as graphs: one for each of a few batch
            sizes and numbers of prompts, which are filled up. Worth it in long runs on a GPU.
    """

    dtype: str = "float32"
    keep: int = KEEP
    compile: bool = False

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of numbers."""
        return DTYPES[self.dtype]


def split_options(uri: Uri, device: torch.device) -> tuple[Uri, DecoderOptions]:
    """Read the options off a URI's query.

    Args:
        uri: For example ``sam:facebook/sam-vit-base?dtype=bfloat16&keep=4096``.
        device: Where the decoder shall compute.

    Returns:
        The URI without its query, and the options. On a CPU without bfloat16 arithmetic, float32 takes its
        place with a warning: emulated, it would be a hundred times slower.

    Raises:
        ConfigError: A key is unknown or its value makes no sense.
    """
    uri.require_keys(field.name for field in fields(DecoderOptions))
    dtype, keep = uri.query.get("dtype", "float32"), uri.integer("keep", usual_keep(device))
    if dtype not in DTYPES:
        raise ConfigError(f"{uri.text!r}: dtype must be {' or '.join(DTYPES)}, got {dtype!r}.")
    if keep < 0:
        raise ConfigError(f"{uri.text!r}: keep must be a number of MiB, at least 0, got {keep}.")
    if uri.query.get("compile", "0") not in ("0", "1"):
        raise ConfigError(f"{uri.text!r}: compile must be 0 or 1, got {uri.query['compile']!r}.")
    if dtype == "bfloat16" and device.type == "cpu" and not cpu_has_bfloat16():
        warnings.warn(
            f"{uri.text!r}: this processor has no bfloat16 arithmetic; decoding in float32.", stacklevel=2
        )
        dtype = "float32"
    return replace(uri, query={}), DecoderOptions(dtype, keep, uri.query.get("compile") == "1")


def usual_keep(device: torch.device) -> int:
    """Return the MiB that are kept of scenes where nobody says."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return KEEP
    return int(torch.cuda.get_device_properties(device).total_memory) // _SHARE_OF_GPU // 2**20


def cpu_has_bfloat16() -> bool:
    """Return whether the processor multiplies matrices in bfloat16 (AVX-512 or AMX, or Arm's)."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
