"""What is measured: a segmenter, and games on it whose prompt sets have a given size."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

import ppd_env  # noqa: F401 (registers the environments)
from ppd_agents.speed.official import official_sam, save_official
from ppd_env.errors import ConfigError
from ppd_env.game.actions import NEGATIVE, POSITIVE
from ppd_env.game_batch import GameBatch
from ppd_env.loading import as_device
from ppd_env.scenes.bank import SceneBank, open_bank
from ppd_env.scenes.sources import open_source
from ppd_env.segmenters.contract import Segmenter
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.segmenters.sam.options import cpu_has_bfloat16

WIDTH, HEIGHT = 1024, 768
"""Size of the measured images in pixels."""

GRID = 16
_STEPS_LEFT = 1000


@dataclass(frozen=True)
class Subject:
    """A segmenter to be measured.

    Args:
        name: As the result calls it: ``"mini"``, ``"vit_b"``, ``"vit_b bfloat16"``,
            ``"vit_b bfloat16 compiled"``.
        uri: Of the segmenter.
        scenes: URI of the scenes it plays on.
        official: The package's model with the same weights, where there is one.
    """

    name: str
    uri: str
    scenes: str
    official: Any = None


def write_scenes(folder: Path, count: int) -> str:
    """Write ``count`` images of 1024 x 768 with masks, enlarged procedural scenes, and return their URI."""
    source = open_source(f"shapes://val?count={count}&seed=0")
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        scene = source[number]
        image = cv2.resize(scene.image, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        mask = cv2.resize(scene.mask.astype(np.uint8) * 255, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        cv2.imwrite(str(folder / "masks" / f"{number}.png"), mask)
    return f"folder://{folder}?images=images&masks=masks"


def open_subjects(
    names: Sequence[str], folder: Path, scenes: str, device: str
) -> tuple[list[Subject], dict[str, str]]:
    """Bring the segmenters into memory and their images through their encoders.

    Args:
        names: ``"mini"``, or architectures of ``segmenters.sam.checkpoint`` such as ``"vit_b"``, each
            followed by its ``bfloat16`` where the segmenter takes ``?dtype=bfloat16``, and on a GPU by that
            with ``compile=1``.
        folder: Where random weights are written, for the same loader to read that reads published ones.
        scenes: URI of the scenes.
        device: A torch device.

    Returns:
        The subjects, and why others are not available, by name.
    """
    found: list[Subject] = []
    missing: dict[str, str] = {}
    for name in names:
        official, uri = None, name
        if name != "mini":
            try:
                official = official_sam(name).to(as_device(device))
            except ConfigError as error:
                missing[name] = str(error)
                continue
            save_official(official, folder / f"{name}.pth")
            uri = f"checkpoint:{name}:{folder / name}.pth"
        for suffix, query in _kinds(name, device):
            subject = Subject(name + suffix, uri + query, scenes, official)
            if suffix and as_device(device).type == "cpu" and not cpu_has_bfloat16():
                # A segmenter then decodes in float32, which would be measured twice.
                missing[subject.name] = "not available: this processor has no bfloat16 arithmetic."
                continue
            try:
                subject_bank(subject, device)
            except ConfigError as error:
                missing[subject.name] = f"not available: {error}".replace(f"{folder}/", "")
                continue
            found.append(subject)
    return found, missing


def _kinds(name: str, device: str) -> list[tuple[str, str]]:
    """Return the ways a segmenter is measured in: what its name gets, and the query of its URI."""
    kinds = [("", ""), (" bfloat16", "?dtype=bfloat16")]
    if name != "mini" and as_device(device).type == "cuda":
        kinds.append((" bfloat16 compiled", "?dtype=bfloat16&compile=1"))
    return kinds


def subject_segmenter(subject: Subject, device: str) -> Segmenter:
    """Return a subject's segmenter; that its weights are not the published ones is no news here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is not the file Meta published.*")
        return load_segmenter(subject.uri, device)


def subject_bank(subject: Subject, device: str) -> SceneBank:
    """Return a subject's scenes, encoded by it once per process and never cached on the disk."""
    subject_segmenter(subject, device)
    return open_bank(subject.scenes, subject.uri, "mini", GRID, device, cache=False, progress=True)


def make_env(subject: Subject, device: str, games: int | None, **changes: Any) -> Any:
    """Make the environment a user would: a single one for None, else the vector of ``games``."""
    kwargs = {
        "scenes": subject.scenes,
        "segmenter": subject.uri,
        "grid": GRID,
        "role": "defender",
        "start": "noise",
        "device": device,
        "attack_steps": _STEPS_LEFT,
        "defence_steps": _STEPS_LEFT,
        **changes,
    }
    if games is None:
        return gym.make("PPD-v0", **kwargs)
    return gym.make_vec("PPD-v0", num_envs=games, vectorization_mode="vector_entry_point", **kwargs)


class ConstantSegmenter:
    """Answers every decode at once with one mask: what remains is the environment's own time.

    Args:
        segmenter: Whose place it takes.
    """

    reentrant = False

    def __init__(self, segmenter: Segmenter) -> None:
        self.uri, self.signature, self.device = segmenter.uri, segmenter.signature, segmenter.device
        self.low_res = segmenter.low_res
        generator = torch.Generator().manual_seed(0)
        self._mask = torch.randn(1, 1, self.low_res, self.low_res, generator=generator).to(self.device)
        self._iou = torch.full((1, 1), 0.5, device=self.device)
        self._embed = segmenter.embed

    def embed(self, image: np.ndarray) -> Any:
        """Encode one image as the segmenter does."""
        return self._embed(image)

    def decode(
        self,
        embedding: Any,
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        multimask: bool = False,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the one mask for each prompt set."""
        count = len(points)
        return self._mask.expand(count, -1, -1, -1), self._iou.expand(count, -1)


def draw_prompts(games: int, nodes: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw prompt sets of ``count`` nodes each, half of them positive: (games, nodes) int8."""
    status = np.zeros((games, nodes), np.int8)
    for row in status:
        chosen = rng.permutation(nodes)[:count]
        row[chosen] = NEGATIVE
        row[chosen[: -(-count // 2)]] = POSITIVE
    return status


def draw_removals(status: np.ndarray, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ``steps`` different legal removals for each prompt set: (steps, games) int64 actions.

    Raises:
        ConfigError: A set has too few prompts for that.
    """
    games, nodes = status.shape
    if (status != 0).sum(axis=1).min() <= steps:
        raise ConfigError(f"{steps} removals need prompt sets of more than {steps} prompts.")
    # A number per node, so that the highest are the drawn ones; one positive is never drawn.
    keys = np.where(status != 0, rng.random(status.shape), -1.0)
    kept = (status == POSITIVE).argmax(axis=1)
    keys[np.arange(games), kept] = -1.0
    drawn = np.argsort(-keys, axis=1)[:, :steps]
    signs = np.take_along_axis(status, drawn, axis=1)
    return (drawn + nodes * (signs == NEGATIVE)).T.astype(np.int64)


def put_prompts(games: GameBatch, status: np.ndarray, segmenter: Segmenter | ConstantSegmenter) -> None:
    """Put prompts into games without decoding: what a step costs does not depend on the Dice before it.

    Args:
        games: The games.
        status: (B, N) int8.
        segmenter: Who decodes their next steps.
    """
    games.simulator.segmenter = segmenter
    games.status[:] = torch.from_numpy(status).to(games.status.device)
    games.steps_left[:] = games.steps_total


def tiled(bank: SceneBank, times: int) -> SceneBank:
    """Return a bank that holds every scene ``times`` times."""

    def repeat(values: Tensor) -> Tensor:
        return values.repeat(times, *[1] * (values.ndim - 1))

    embedding = replace(
        bank.embedding,
        tensors={name: repeat(values) for name, values in bank.embedding.tensors.items()},
        sizes=repeat(bank.embedding.sizes),
    )
    fields = ("features", "points", "truth", "void", "peak", "target", "valid", "counted")
    repeated: dict[str, Any] = {name: repeat(getattr(bank, name)) for name in fields}
    return replace(
        bank,
        names=bank.names * times,
        groups=bank.groups * times,
        indices=bank.indices * times,
        embedding=embedding,
        **repeated,
    )
