"""What ``ppd doctor`` looks at: packages, system libraries, devices, weights, folders; what to do next."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

OLDEST_PYTHON = (3, 11)
_PACKAGES = {
    "torch": "torch",
    "numpy": "numpy",
    "gymnasium": "gymnasium",
    "pettingzoo": "pettingzoo",
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
_OPTIONAL = {
    "transformers": ("transformers", "published SAM, DINOv2 and DINOv3 models", "sam"),
    "segment-anything": ("segment_anything", "official SAM checkpoint files", "sam"),
    "huggingface_hub": ("huggingface_hub", "agents to and from the hub", "hub"),
    "ray": ("ray", "--ray of ppd encode and ppd evaluate --table", "ray"),
    "starlette": ("starlette", "ppd serve", "demo"),
    "moviepy": ("moviepy", "ppd play --video mp4", "video"),
}
"""Package -> module, what it is for, the extra that brings it."""

_HUB_MODELS = ("sam", "edgetam", "dinov2", "dinov3")
_CHECKPOINTS = ("*.pth", "*.pt")
_LITTLE_DISK = 2 * 10**9


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Args:
        name: What.
        ok: Whether it works; what is optional and absent is ok.
        detail: What was found, or what is wrong.
        next: What to do about it; empty where there is nothing to do.
    """

    name: str
    ok: bool
    detail: str
    next: str = ""


def _python() -> Check:
    found = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        return Check("Python", False, f"{found} is too old", "use Python 3.11 or newer")
    return Check("Python", True, f"{found}, {platform.platform(terse=True)}")


def _opencv() -> Check:
    name = "opencv-python"
    try:
        import cv2
    except ImportError as error:
        remedy = (
            "install the system's libGL and libglib: on Debian or Ubuntu, apt-get install libgl1 libglib2.0-0"
        )
        return Check(name, False, str(error).rstrip("."), remedy)
    return Check(name, True, f"{cv2.__version__}, with the system libraries it needs")


def _pygame() -> Check:
    try:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        import pygame
    except ImportError as error:
        remedy = "pip install --force-reinstall pygame; its wheel brings SDL along"
        return Check("pygame", False, str(error).rstrip("."), remedy)
    from ppd_agents.play.window import has_display

    sdl = ".".join(str(part) for part in pygame.get_sdl_version())
    shown = "a display" if has_display() else "no display: ppd play uses the terminal"
    return Check("pygame", True, f"{pygame.version.ver}, SDL {sdl}, {shown}")


def _package(name: str, module: str) -> Check:
    try:
        import_module(module)
        return Check(name, True, version(name))
    except (ImportError, PackageNotFoundError) as error:
        return Check(name, False, str(error).rstrip("."), "pip install 'point-prompt-defender[agents]'")


def _optional(name: str, module: str, purpose: str, extra: str) -> Check:
    """Look for an optional package without importing it: some take seconds."""
    if find_spec(module) is None:
        return Check(name, True, f"not installed; only for {purpose}: 'point-prompt-defender[{extra}]'")
    return Check(name, True, f"{version(name)}, for {purpose}")


def _devices() -> Check:
    import torch

    found = [f"CPU with {torch.get_num_threads()} threads"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(f"cuda:{index} {properties.name} with {properties.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        found.append("mps")
    chosen = (
        "commands take the CPU unless --device names another"
        if len(found) > 1
        else "none but the CPU is needed"
    )
    return Check("devices", True, f"{'; '.join(found)} ({chosen})")


def _mini() -> Check:
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
        return Check(
            "embedded weights", False, "they give values that are not finite", "install the package again"
        )
    return Check("embedded weights", True, f"signature {segmenter.signature}")


def _agents() -> Check:
    from ppd_agents.shipped import open_agent, shipped_names
    from ppd_agents.training.presets import ROLES

    names = shipped_names()
    for name in names:
        for role in ROLES:
            open_agent(name, role)
    if not names:
        return Check("shipped agents", False, "there are none", "install the package again")
    return Check("shipped agents", True, f"{', '.join(names)} (attacker and defender)")


def hub_cache() -> Path:
    """Return the folder in which the Hugging Face Hub's library keeps models on this machine."""
    chosen = os.environ.get("HF_HUB_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    home = os.environ.get("HF_HOME")
    return (Path(home).expanduser() if home else Path.home() / ".cache" / "huggingface") / "hub"


def _hub_models() -> Check:
    """Name the models of the hub that lie here with their weights."""
    folder = hub_cache()
    found = []
    for path in sorted(folder.glob("models--*--*")):
        owner, _, name = path.name.removeprefix("models--").partition("--")
        known = any(kind in name.lower() for kind in _HUB_MODELS)
        weights = any(path.glob("snapshots/*/*.safetensors")) or any(path.glob("snapshots/*/*.bin"))
        if known and weights:
            found.append(f"{owner}/{name}")
    if found:
        return Check("hub models", True, f"{', '.join(found)} in {folder}")
    todo = "`hf download facebook/sam-vit-base`, then --segmenter sam:facebook/sam-vit-base"
    return Check("hub models", True, f"no SAM or DINO model in {folder}", f"for published models: {todo}")


def _checkpoint_files() -> Check:
    """Name the checkpoint files here and in torch's own folder."""
    torch_home = os.environ.get("TORCH_HOME")
    hub = (Path(torch_home) if torch_home else Path.home() / ".cache" / "torch") / "hub" / "checkpoints"
    found = [
        f"{path} ({path.stat().st_size / 1e6:.0f} MB)"
        for folder in (Path("checkpoints"), Path("weights"), hub)
        for pattern in _CHECKPOINTS
        for path in sorted(folder.glob(pattern))
    ]
    return Check("checkpoint files", True, ", ".join(found) or f"none in ./checkpoints, ./weights or {hub}")


def _trained() -> Check:
    from ppd_agents.dqn.agent import is_agent

    found = [str(path.parent) for path in sorted(Path("runs").glob("*/training/defender")) if is_agent(path)]
    if found:
        return Check("trained here", True, ", ".join(found))
    return Check("trained here", True, "nothing in ./runs", "train both agents: `ppd run`")


def _cache() -> Check:
    from ppd_env.paths import cache_dir

    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"{folder} cannot be written ({error})"
        return Check("cache folder", False, reason, "set PPD_CACHE to another folder")
    held = sum(size for size in _sizes(folder))
    free = shutil.disk_usage(folder).free
    detail = f"{folder} holds {held / 1e6:.0f} MB, {free / 1e9:.1f} GB are free"
    if free < _LITTLE_DISK:
        return Check("cache folder", True, detail, f"free some space, or remove {folder}: it is made again")
    return Check("cache folder", True, detail)


def _sizes(folder: Path) -> Iterator[int]:
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(os.path.join(where, name)).st_size
            except OSError:
                continue  # removed while we look


def _attempt(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except Exception as error:
        reason = " ".join((str(error) or type(error).__name__).split())
        return Check(name, False, reason, "install the package again")


def examine() -> list[Check]:
    """Look at everything; nothing is raised."""
    checks = [_attempt("Python", _python), _attempt("opencv-python", _opencv), _attempt("pygame", _pygame)]
    checks += [_package(name, module) for name, module in _PACKAGES.items()]
    checks += [_optional(name, *facts) for name, facts in _OPTIONAL.items()]
    looks: dict[str, Callable[[], Check]] = {
        "devices": _devices,
        "embedded weights": _mini,
        "shipped agents": _agents,
        "hub models": _hub_models,
        "checkpoint files": _checkpoint_files,
        "trained here": _trained,
        "cache folder": _cache,
    }
    return checks + [_attempt(name, look) for name, look in looks.items()]


def text(checks: list[Check]) -> str:
    """Write the checks as lines, and below them what to do next."""
    lines = [f"{'ok ' if check.ok else 'BAD'}  {check.name:20} {check.detail}" for check in checks]
    bad = sum(not check.ok for check in checks)
    lines.append("Everything works." if not bad else f"{bad} of {len(checks)} checks failed.")
    todo = [check for check in sorted(checks, key=lambda check: check.ok) if check.next]
    if todo:
        lines += ["", "What to do next:", *(f"  {check.name}: {check.next}" for check in todo)]
    return "\n".join(lines)


def as_json(checks: list[Check]) -> dict[str, dict[str, object]]:
    """Return the checks as the JSON file has them: by name, ``{"ok", "detail", "next"}``."""
    return {check.name: {"ok": check.ok, "detail": check.detail, "next": check.next} for check in checks}
