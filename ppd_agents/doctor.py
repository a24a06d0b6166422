"""What ``ppd doctor`` looks at: Python, packages, system libraries, embedded weights, folders."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version

OLDEST_PYTHON = (3, 11)
_PACKAGES = {
    "torch": "torch",
    "numpy": "numpy",
    "gymnasium": "gymnasium",
    "pettingzoo": "pettingzoo",
    "pygame": "pygame",
    "safetensors": "safetensors",
    "scikit-image": "skimage",
    "stable-baselines3": "stable_baselines3",
    "jinja2": "jinja2",
    "tyro": "tyro",
    "filelock": "filelock",
    "matplotlib": "matplotlib",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Args:
        name: What.
        ok: Whether it works.
        detail: What was found, or what to do.
    """

    name: str
    ok: bool
    detail: str


def _python() -> str:
    found = sys.version.split()[0]
    if sys.version_info < OLDEST_PYTHON:
        raise RuntimeError(f"{found} is too old: use Python 3.11 or newer.")
    return found


def _opencv() -> str:
    try:
        import cv2
    except ImportError as error:
        raise RuntimeError(
            f"{error}. It links the system's libGL and libglib: on Debian or Ubuntu, apt-get install libgl1 "
            "libglib2.0-0."
        ) from None
    return str(cv2.__version__)


def _package(name: str, module: str) -> str:
    import_module(module)
    return version(name)


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()} (the default is the CPU all the same)"
    return f"CPU, {torch.get_num_threads()} threads; none but the CPU is needed"


def _mini() -> str:
    import numpy as np
    import torch

    from ppd_env.features.registry import load_features
    from ppd_env.segmenters.registry import load_segmenter

    segmenter = load_segmenter("mini")
    image = np.zeros((64, 96, 3), np.uint8)
    embedding = segmenter.embed(image)
    logits, _ = segmenter.decode(embedding, torch.tensor([[[48.0, 32.0]]]), torch.tensor([[1]]))
    features = load_features("mini").extract(image, 8)
    if not (torch.isfinite(logits).all() and torch.isfinite(features).all()):
        raise RuntimeError("the embedded weights give values that are not finite; install the package again.")
    return f"signature {segmenter.signature}"


def _cache() -> str:
    from ppd_env.paths import cache_dir

    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RuntimeError(
            f"{folder} cannot be written ({error}); set PPD_CACHE to another folder."
        ) from None
    return os.fspath(folder)


def _attempt(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except Exception as error:
        return Check(name, False, str(error) or type(error).__name__)


def examine() -> list[Check]:
    """Look at everything; nothing is raised."""
    checks = [_attempt("Python", _python), _attempt("opencv-python", _opencv)]
    for name, module in _PACKAGES.items():
        checks.append(_attempt(name, lambda name=name, module=module: _package(name, module)))  # type: ignore[misc]
    checks.append(_attempt("device", _device))
    checks.append(_attempt("embedded weights", _mini))
    checks.append(_attempt("cache folder", _cache))
    return checks


def text(checks: list[Check]) -> str:
    """Write the checks as lines."""
    lines = [f"{'ok ' if check.ok else 'BAD'}  {check.name:20} {check.detail}" for check in checks]
    bad = sum(not check.ok for check in checks)
    lines.append("Everything works." if not bad else f"{bad} of {len(checks)} checks failed.")
    return "\n".join(lines)


def as_json(checks: list[Check]) -> dict[str, dict[str, object]]:
    """Return the checks as the JSON file has them, by name."""
    return {check.name: {"ok": check.ok, "detail": check.detail} for check in checks}
