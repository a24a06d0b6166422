"""Plug-and-play inference: clean the point prompts of any image, for any segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from ppd_agents.dqn.agent import Agent, GreedyAgent, load_agent
from ppd_agents.dqn.exploration import mask_values
from ppd_agents.dqn.q_network import GraphState
from ppd_env.errors import PPDError
from ppd_env.features.registry import load_features
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE, encode, legal_actions
from ppd_env.graph.distances import pairwise_distance
from ppd_env.scenes.bank import patch_centres
from ppd_env.segmenters.contract import Embedding, Segmenter
from ppd_env.segmenters.letterbox import scaled_size
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import FEEDBACK_SAMPLES

WEIGHTS = Path(__file__).parent / "weights"
"""Where the agents lie that ship with the package, one folder each."""


@dataclass(frozen=True)
class Verdict:
    """What the defender thinks of one prompt.

    Args:
        index: Its place in the prompts that were given.
        point: (x, y) in pixels.
        label: 1 positive, 0 negative.
        kept: Whether it stays.
        value: What its removal is worth by the agent's Q-value, when that was decided: the expected change of
            Dice, with what the training may have added for undoing an attack (``TrainConfig.shaping``).
        step: The defender's step that removed it, from 1; None where it stays.
        reason: The same in words.
    """

    index: int
    point: tuple[float, float]
    label: int
    kept: bool
    value: float
    step: int | None
    reason: str


@dataclass(frozen=True, eq=False)
class Refinement:
    """Cleaned prompts.

    Args:
        points: (m, 2) float32 (x, y) pixels of the prompts that stay, in the order given.
        labels: (m,) int64, 1 positive, 0 negative.
        kept: (m,) int64, their places in the prompts that were given.
        verdicts: One per given prompt, in the order given.
        stopped: Why the defender stopped.
    """

    points: np.ndarray
    labels: np.ndarray
    kept: np.ndarray
    verdicts: tuple[Verdict, ...]
    stopped: str

    @property
    def removed(self) -> tuple[Verdict, ...]:
        """The verdicts on the prompts that go, in the order they went."""
        return tuple(sorted((v for v in self.verdicts if not v.kept), key=lambda v: (v.step or 0, v.index)))


@dataclass(frozen=True)
class _Prompts:
    """Checked prompts of one image: points (n, 2) float64, labels (n,) and nodes (n,) int64."""

    points: np.ndarray
    labels: np.ndarray
    nodes: np.ndarray

    def status(self, count: int, chosen: np.ndarray) -> np.ndarray:
        """Return the status (N,) int8 that the ``chosen`` (n,) prompts make."""
        status = np.full(count, INACTIVE, np.int8)
        status[self.nodes[chosen]] = np.where(self.labels[chosen] == 1, POSITIVE, NEGATIVE)
        return status


class Defender:
    """A trained defender that cleans prompts; it needs no segmenter and no retraining.

    Args:
        agent: A trained defender.
        device: A torch device.

    Raises:
        PPDError: The agent is an attacker, or its features are not those it was trained on.
    """

    def __init__(self, agent: Agent, device: torch.device | str = "cpu") -> None:
        if agent.role != "defender":
            raise PPDError("This agent is an attacker; a Defender needs a trained defender.")
        self.agent = agent.to(device)
        self._extractor = load_features(agent.features, device)
        if self._extractor.signature != agent.features_signature:
            raise PPDError(
                f"The features {agent.features!r} installed here are not those the agent was trained on "
                f"({self._extractor.signature} instead of {agent.features_signature}): train it again, or "
                "install the version it came with."
            )

    @staticmethod
    def load(name_or_path: str | Path, device: torch.device | str = "cpu") -> Defender:
        """Load a defender.

        Args:
            name_or_path: Folder of a saved agent, or the name of one the package ships (``"mini"``).
            device: A torch device.

        Returns:
            The defender.

        Raises:
            PPDError: There is no such agent, or it cannot be used.
        """
        shipped = WEIGHTS / str(name_or_path)
        if Path(name_or_path).is_dir():
            return Defender(load_agent(name_or_path, device), device)
        if shipped.is_dir():
            return Defender(load_agent(shipped, device), device)
        names = ", ".join(sorted(p.name for p in WEIGHTS.glob("*/"))) if WEIGHTS.is_dir() else ""
        raise PPDError(
            f"There is no defender {str(name_or_path)!r}: it is neither a folder nor one that ships with the "
            f"package ({names or 'none do'})."
        )

    def refine(
        self,
        image: np.ndarray,
        points: np.ndarray | Sequence[Sequence[float]],
        labels: np.ndarray | Sequence[int],
        segmenter: Segmenter | str | None = None,
    ) -> Refinement:
        """Remove the prompts that hurt; stop when no removal is expected to help.

        Prompts of one sign in one patch count as one. Where a patch holds both signs, the positive ones are
        judged first and the negative ones in a second pass. If a positive prompt is given, one is returned.

        Args:
            image: (H, W, 3) uint8 RGB.
            points: (n, 2) (x, y) in pixels, as SAM's predictor takes them.
            labels: (n,) 1 positive, 0 negative.
            segmenter: A segmenter or its URI; asked only by agents that were trained with its feedback.

        Returns:
            What stays, and a verdict on every prompt.

        Raises:
            PPDError: The image or a prompt cannot be used; the message says which and why.
        """
        _check_image(image)
        prompts = _check_prompts(points, labels, image.shape[:2], self.agent.grid)
        judge = _Judge(self.agent, self._extractor.extract(image, self.agent.grid), prompts)
        if self.agent.network.config.use_feedback:
            judge.watch(image, segmenter)
        contested = _contested(prompts)
        negative = prompts.labels == 0
        first = judge.clean(~(contested & negative))
        second = judge.clean(~(contested & ~negative)) if contested.any() else first
        kept = np.flatnonzero(judge.alive)
        points_kept = prompts.points[kept].astype(np.float32)
        return Refinement(points_kept, prompts.labels[kept], kept, tuple(judge.verdicts()), second)


class _Judge:
    """Removes prompts of one image step by step, and remembers why.

    Args:
        agent: The defender.
        features: (N, d) float32 of the image.
        prompts: The checked prompts.

    Attributes:
        alive: (n,) bool, prompts still there.
    """

    def __init__(self, agent: Agent, features: Tensor, prompts: _Prompts) -> None:
        self._agent, self._prompts = agent, prompts
        self._features = features[None]
        self._positions = patch_centres(agent.grid).to(features.device)
        self._watched: tuple[Segmenter, Embedding] | None = None
        self._steps = 0
        self._values = np.zeros(len(prompts.labels))
        self._removed_at: dict[int, int] = {}
        self._reasons: dict[int, str] = {}
        self.alive = np.ones(len(prompts.labels), bool)

    def watch(self, image: np.ndarray, segmenter: Segmenter | str | None) -> None:
        """Ask ``segmenter`` for its answer before every step."""
        if segmenter is None:
            raise PPDError(
                "This defender was trained with a segmenter's feedback: pass refine(..., segmenter=...)."
            )
        loaded = load_segmenter(segmenter) if isinstance(segmenter, str) else segmenter
        self._watched = (loaded, loaded.embed(image))

    def clean(self, considered: np.ndarray) -> str:
        """Remove prompts among those ``considered`` (n,) until nothing helps; return why it stopped."""
        while True:
            chosen = self.alive & considered
            status = torch.from_numpy(self._prompts.status(len(self._positions), chosen))[None]
            values, legal = self._look(status.to(self._features.device), chosen)
            candidates = self._candidates()
            self._values[chosen] = values[candidates[chosen]]
            best = int(mask_values(values, legal).argmax())
            if not bool(legal.any()):
                return "nothing more may be removed: the last positive prompt, or else the last one, stays"
            if float(values[best]) < self._agent.least_gain:
                return f"no removal is worth {self._agent.least_gain:g} of Dice"
            self._remove(chosen & (candidates == best), status)

    def _candidates(self) -> np.ndarray:
        """Return the action that removes each prompt, (n,) int64."""
        sign = torch.from_numpy(np.where(self._prompts.labels == 1, POSITIVE, NEGATIVE))
        return encode(sign, torch.from_numpy(self._prompts.nodes), len(self._positions)).numpy()

    def _look(self, status: Tensor, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the values and the mask of all removals, (2N,) each, on the CPU."""
        row = torch.zeros(1, dtype=torch.int64, device=status.device)
        seen = self._feedback(chosen)
        values = self._agent.values(GraphState(self._features, self._positions, row, status, *seen))
        legal = legal_actions(status, torch.zeros(1, dtype=torch.bool, device=status.device))
        return values[0, :-1].cpu(), legal[0, :-1].cpu()

    def _feedback(self, chosen: np.ndarray) -> tuple[Tensor | None, Tensor | None]:
        if self._watched is None:
            return None, None
        segmenter, embedding = self._watched
        points = torch.from_numpy(self._prompts.points[chosen]).float()[None].to(segmenter.device)
        labels = torch.from_numpy(self._prompts.labels[chosen])[None].to(segmenter.device)
        with torch.no_grad():
            logits, iou = segmenter.decode(embedding, points, labels)
        original_height, original_width = embedding.sizes[0].tolist()
        height, width = scaled_size(original_height, original_width, segmenter.low_res)
        mask = (logits[:, :, :height, :width] > 0).float()
        samples = self._agent.grid * FEEDBACK_SAMPLES
        share = avg_pool2d(interpolate(mask, (samples, samples), mode="nearest-exact"), FEEDBACK_SAMPLES)
        device = self._features.device
        return share.flatten(1).to(device), iou[:, 0].clamp(0, 1).to(device)

    def _remove(self, going: np.ndarray, status: Tensor) -> None:
        self._steps += 1
        for index in np.flatnonzero(going).tolist():
            self._removed_at[index] = self._steps
            self._reasons[index] = self._explain(index, status[0].cpu().numpy())
        self.alive[going] = False

    def _explain(self, index: int, status: np.ndarray) -> str:
        """Say in words what speaks against a prompt: whom it looks like."""
        node, label = int(self._prompts.nodes[index]), int(self._prompts.labels[index])
        distance = pairwise_distance(self._features[:, [node]], self._features)[0, 0].cpu().numpy()
        distance[node] = np.inf
        own, other = (POSITIVE, NEGATIVE) if label == 1 else (NEGATIVE, POSITIVE)
        gain = f"removing it is worth {self._values[index]:.3f} of Dice"
        near = {sign: distance[status == sign].min(initial=np.inf) for sign in (own, other)}
        names = {POSITIVE: "positive", NEGATIVE: "negative"}
        if near[other] < near[own]:
            return (
                f"{names[own]} prompt that looks like a {names[other]} one (feature distance "
                f"{near[other]:.2f}, nearest other {names[own]} one {_far(near[own])}); {gain}"
            )
        return f"{names[own]} prompt that misleads where it lies; {gain}"

    def verdicts(self) -> list[Verdict]:
        """Return one verdict per given prompt."""
        found = []
        for index, (point, label) in enumerate(zip(self._prompts.points, self._prompts.labels, strict=True)):
            kept, value = bool(self.alive[index]), float(self._values[index])
            reason = f"stays: removing it is worth {value:+.3f} of Dice"
            found.append(
                Verdict(
                    index=index,
                    point=(float(point[0]), float(point[1])),
                    label=int(label),
                    kept=kept,
                    value=value,
                    step=self._removed_at.get(index),
                    reason=reason if kept else self._reasons[index],
                )
            )
        return found


def _far(distance: float) -> str:
    return f"{distance:.2f}" if np.isfinite(distance) else "none"


def _check_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise PPDError(f"The image must be an (H, W, 3) uint8 RGB array, got {found}: convert it first.")
    if not image.size:
        raise PPDError(f"The image is empty: its shape is {image.shape}.")


def _check_prompts(
    points: np.ndarray | Sequence[Sequence[float]],
    labels: np.ndarray | Sequence[int],
    size: tuple[int, int],
    grid: int,
) -> _Prompts:
    """Check prompts against an image of (height, width) ``size`` and find their patches."""
    where, signs = np.asarray(points, np.float64), np.asarray(labels)
    if where.ndim != 2 or where.shape[1] != 2 or not len(where):
        raise PPDError(f"points must be (n, 2) pixels (x, y) with n >= 1, got shape {where.shape}.")
    if signs.shape != (len(where),):
        raise PPDError(f"{len(where)} points need as many labels, got shape {signs.shape}.")
    if not np.isin(signs, (0, 1)).all():
        wrong = signs[~np.isin(signs, (0, 1))][0]
        raise PPDError(f"labels must be 1 (positive) or 0 (negative), got {wrong!r}.")
    height, width = size
    inside = (where >= 0).all(1) & (where[:, 0] < width) & (where[:, 1] < height)
    if not inside.all():
        x, y = where[~inside][0]
        raise PPDError(
            f"Point ({x:g}, {y:g}) lies outside the image, which is {width} pixels wide and {height} high: "
            "give (x, y) in pixels of this image."
        )
    _refuse_contradictions(where, signs)
    column = np.minimum((where[:, 0] * grid / width).astype(np.int64), grid - 1)
    row = np.minimum((where[:, 1] * grid / height).astype(np.int64), grid - 1)
    return _Prompts(where, signs.astype(np.int64), row * grid + column)


def _refuse_contradictions(points: np.ndarray, labels: np.ndarray) -> None:
    seen: dict[tuple[float, float], int] = {}
    for (x, y), label in zip(points.tolist(), labels.tolist(), strict=True):
        if seen.setdefault((x, y), label) != label:
            raise PPDError(
                f"Point ({x:g}, {y:g}) is given as positive and as negative: remove one of the two."
            )


def _contested(prompts: _Prompts) -> np.ndarray:
    """Mark the prompts (n,) bool whose patch holds both signs."""
    both = np.intersect1d(prompts.nodes[prompts.labels == 1], prompts.nodes[prompts.labels == 0])
    return np.isin(prompts.nodes, both)


def load_opponent(path: str, stop: str = "true", device: str = "cpu") -> GreedyAgent:
    """Return a saved agent as an opponent: ``ppd_agents.defender:load_opponent?path=FOLDER``.

    Args:
        path: Folder of a saved attacker or defender.
        stop: ``"false"``: it stops only when nothing else is legal.
        device: A torch device.

    Returns:
        The opponent.

    Raises:
        PPDError: The folder holds no agent, or ``stop`` is neither true nor false.
    """
    if stop not in ("true", "false"):
        raise PPDError(f"stop must be 'true' or 'false', got {stop!r}.")
    return GreedyAgent(load_agent(path, device), stop == "true")
