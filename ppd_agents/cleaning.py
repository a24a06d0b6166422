"""A defender's moves on prompt sets that users gave: images side by side, each as if it were alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate
from torch.nn.utils.rnn import pad_sequence

from ppd_agents.dqn.agent import Agent
from ppd_agents.dqn.graph_state import GraphState
from ppd_agents.prompt_sets import PromptSet
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE, encode, legal_actions
from ppd_env.graph.distances import pairwise_distance
from ppd_env.prompting.pair import grid_of
from ppd_env.scenes.patches import patch_centres
from ppd_env.segmenters.contract import ABSENT, Embedding, Segmenter
from ppd_env.segmenters.letterbox import scaled_size
from ppd_env.simulator import FEEDBACK_SAMPLES, Simulator

_TIE = 1e-4
"""Values this close count as equal, and the first candidate goes: beside other images, whose prompts pad the
batch, the last digits of a value change."""

_DECODED_AT_ONCE = 64
_CLEANED_AT_ONCE = 64


class Witness:
    """What a segmenter answers to the prompts that are shown, for agents trained with its feedback.

    Args:
        segmenter: The segmenter.
        embedding: Of the B images.
        prompts: Of the B images.
        grid: Patches per side.
    """

    def __init__(
        self, segmenter: Segmenter, embedding: Embedding, prompts: Sequence[PromptSet], grid: int
    ) -> None:
        self._segmenter, self._embedding, self._grid = segmenter, embedding, grid
        self._prompts = prompts

    def answer(self, rows: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Segment k images.

        Args:
            rows: (k,) int64, which ones.
            shown: (k, 2N) bool, the candidates whose prompts the segmenter gets.

        Returns:
            The share of predicted foreground per node, (k, N) float32, and the predicted IoU (k,) float32.
        """
        parts = [
            self._decode(*pair)
            for pair in zip(rows.split(_DECODED_AT_ONCE), shown.split(_DECODED_AT_ONCE), strict=True)
        ]
        share, iou = (torch.cat(part).to(shown.device) for part in zip(*parts, strict=True))
        return share, iou

    @torch.no_grad()
    def _decode(self, rows: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        points, labels = [], []
        for row, candidates in zip(rows.tolist(), shown.cpu().numpy(), strict=True):
            given = self._prompts[row]
            chosen = candidates[given.candidates]
            points.append(torch.from_numpy(given.points[chosen]).float())
            labels.append(torch.from_numpy(given.labels[chosen]))
        device = self._segmenter.device
        where = pad_sequence(points, batch_first=True).to(device)
        signs = pad_sequence(labels, batch_first=True, padding_value=ABSENT).to(device)
        rows = rows.to(device)
        logits, iou = self._segmenter.decode(self._embedding, where, signs, rows=rows)
        sizes = self._embedding.sizes[rows].tolist()
        shares = [self._share(one, (h, w)) for one, (h, w) in zip(logits[:, 0], sizes, strict=True)]
        return torch.cat(shares), iou[:, 0].clamp(0, 1)

    def _share(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the share of foreground per node, (1, N), of one image's logits (h, h)."""
        height, width = scaled_size(*size, self._segmenter.low_res)
        mask = (logits[None, None, :height, :width] > 0).float()
        samples = self._grid * FEEDBACK_SAMPLES
        share = avg_pool2d(interpolate(mask, (samples, samples), mode="nearest-exact"), FEEDBACK_SAMPLES)
        return share.flatten(1)


class Cleaning:
    """Removes the prompts of B images step by step, and remembers why; see ``Defender.refine`` for the rule.

    Every step looks once at all images that go on. Candidates are counted as in the game: (positive, node)
    for each node, then (negative, node).

    Args:
        agent: The defender.
        features: (B, N, d) float32.
        prompts: Of the B images.
        witness: Tells what a segmenter makes of the prompts, for an agent that wants to know.

    Attributes:
        alive: (B, 2N) bool, candidates that have prompts and stay.
        values: (B, 2N) float32, what their removal was worth when last looked at.
        thresholds: (B, 2N) float32, what it had to be worth then.
        removed_at: (B, 2N) int64, the step of each image that removed them, from 1; 0 for those that stay.
        reasons: In words why, by (image, candidate).
        stopped: Why each image's cleaning ended.
    """

    def __init__(
        self, agent: Agent, features: Tensor, prompts: Sequence[PromptSet], witness: Witness | None
    ) -> None:
        self._agent, self._features, self._witness = agent, features, witness
        images, nodes = features.shape[:2]
        self._positions = patch_centres(grid_of(nodes)).to(features.device)
        self.alive = torch.zeros((images, 2 * nodes), dtype=torch.bool, device=features.device)
        for row, given in zip(self.alive, prompts, strict=True):
            row[torch.from_numpy(given.candidates).to(row.device)] = True
        self._given = self.alive.clone()
        self._contested = self._by_sign(self.alive).all(dim=1)
        self._second = torch.zeros(images, dtype=torch.bool, device=features.device)
        self._steps = torch.zeros(images, dtype=torch.int64, device=features.device)
        self.values = torch.zeros((images, 2 * nodes), device=features.device)
        self.thresholds = torch.zeros_like(self.values)
        self.removed_at = torch.zeros((images, 2 * nodes), dtype=torch.int64, device=features.device)
        self.reasons: dict[tuple[int, int], str] = {}
        self.stopped = [""] * images

    def run(self) -> None:
        """Clean all images to the end."""
        running = torch.arange(len(self.alive), device=self.alive.device)
        while len(running):
            running = running[self._step(running)]

    @staticmethod
    def _by_sign(candidates: Tensor) -> Tensor:
        """View (k, 2N) candidates as (k, 2, N)."""
        return candidates.unflatten(1, (2, -1))

    def _step(self, rows: Tensor) -> Tensor:
        """Take one step in the images ``rows`` (k,); return which of them go on, (k,) bool."""
        shown, status = self._shown(rows, self.alive)
        feedback, iou = self._witness.answer(rows, shown) if self._witness is not None else (None, None)
        _, given = self._shown(rows, self._given)
        state = GraphState(
            self._features, self._positions, rows, status, feedback=feedback, predicted_iou=iou, seen=given
        )
        values = self._agent.values(state)[:, :-1]
        free = self._by_sign(shown).clone()
        free[:, 0] &= ~self._second[rows, None]
        judged = free.flatten(1)
        self.values[rows] = torch.where(judged, values, self.values[rows])
        least = self._agent.stop_value(self._steps[rows] > 0)[:, None]
        self.thresholds[rows] = torch.where(judged, least, self.thresholds[rows])
        moved, legal = self._remove_best(rows, values, judged, status)
        again = ~moved & self._contested[rows].any(dim=1) & ~self._second[rows]
        self._second[rows[again]] = True
        for row, choice in zip(
            rows[~moved & ~again].tolist(), legal[~moved & ~again].any(dim=1), strict=True
        ):
            self.stopped[row] = self._why_stop(row, bool(choice))
        return moved | again

    def _remove_best(
        self, rows: Tensor, values: Tensor, judged: Tensor, status: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Remove the best of the candidates ``judged`` in each image; of many prompts, several of them.

        Returns:
            Which images lost one, (k,) bool, and what was legal, (k, 2N) bool, in those that did not.
        """
        moved = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        quota = ((status != INACTIVE).sum(dim=1) * self._agent.at_once).long()
        for turn in range(max(1, int(quota.max()))):
            legal = legal_actions(status, torch.zeros_like(moved))[:, :-1] & judged
            worth = values.masked_fill(~legal, -torch.inf).amax(dim=1)
            least = self._agent.stop_value(self._steps[rows] > 0)
            moves = worth >= least
            if turn:
                moves &= moved & (turn < quota)
            if not bool(moves.any()):
                break
            chosen = _first_best(values, legal)[moves]
            self.thresholds[rows[moves], chosen] = least[moves]  # the first one of a look may need more
            self._remove(rows[moves], chosen)
            moved |= moves
            shown, status = self._shown(rows, self.alive)
            judged = judged & shown
        return moved, legal

    def _shown(self, rows: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is shown of ``among`` (B, 2N): (k, 2N) bool, and the status (k, N) int8 it makes."""
        shown = self._by_sign(among[rows]).clone()
        second, contested = self._second[rows, None], self._contested[rows]
        shown[:, 0] &= ~(contested & second)
        shown[:, 1] &= ~(contested & ~second)
        status = POSITIVE * shown[:, 0].to(torch.int8) + NEGATIVE * shown[:, 1].to(torch.int8)
        return shown.flatten(1), status

    def _why_stop(self, row: int, choice: bool) -> str:
        if choice:
            least = self._agent.further_gain if bool(self._steps[row]) else self._agent.least_gain
            return f"no removal is valued at {least:g} or more" if least else "no removal is expected to help"
        return "nothing more may be removed: the last positive prompt, or else the last one, stays"

    def _remove(self, rows: Tensor, candidates: Tensor) -> None:
        """Remove one candidate from each of k images."""
        self.alive[rows, candidates] = False
        self._steps[rows] += 1
        self.removed_at[rows, candidates] = self._steps[rows]
        features, count = self._features[rows], self._features.shape[1]
        own = features.take_along_dim((candidates % count)[:, None, None], dim=1)
        distance = pairwise_distance(own, features)[:, 0]
        stay = self._by_sign(self.alive[rows])  # those out of view in a contested patch as well
        near = [distance.masked_fill(~stay[:, sign], torch.inf).amin(dim=1) for sign in (0, 1)]
        least = self.thresholds[rows, candidates]
        told = (rows, candidates, self.values[rows, candidates], least, *near)
        for row, candidate, value, enough, positive, negative in zip(
            *(t.tolist() for t in told), strict=True
        ):
            sign = POSITIVE if candidate < count else NEGATIVE
            looks = {POSITIVE: positive, NEGATIVE: negative}
            worth = f"its removal is valued at {value:+.3f}"
            worth += f", and {enough:g} is enough after the first" if value < 0 else ""
            self.reasons[row, candidate] = f"{_explain(sign, looks)}; {worth}"


def clean_nodes(agent: Agent, simulator: Simulator, rows: Tensor, status: Tensor) -> Tensor:
    """Clean prompts in the middle of their patches.

    Args:
        agent: The defender.
        simulator: The scenes, and the segmenter for an agent that was trained with its feedback.
        rows: (B,) int64, rows of the bank.
        status: (B, N) int8.

    Returns:
        (B, N) int8, ``status`` with some prompts inactive.
    """
    bank, kept = simulator.bank, status.clone()
    prompted = (status != INACTIVE).any(dim=1).nonzero().flatten()
    for chunk in prompted.split(_CLEANED_AT_ONCE):
        given = [
            _on_nodes(bank.points[row], one) for row, one in zip(rows[chunk], status[chunk], strict=True)
        ]
        witness = None
        if agent.network.config.use_feedback:
            witness = Witness(simulator.segmenter, bank.embedding[rows[chunk]], given, bank.grid)
        cleaning = Cleaning(agent, bank.features[rows[chunk]], given, witness)
        cleaning.run()
        alive = cleaning.alive.unflatten(1, (2, -1)).any(dim=1)
        kept[chunk] = torch.where(alive, status[chunk], INACTIVE)
    return kept


def _on_nodes(points: Tensor, status: Tensor) -> PromptSet:
    """Return the prompts (N,) of one scene whose nodes lie at ``points`` (N, 2)."""
    nodes = (status != INACTIVE).nonzero().flatten()
    candidates = encode(status[nodes], nodes, len(status)).cpu().numpy()
    labels = (status[nodes] == POSITIVE).long().cpu().numpy()
    return PromptSet(points[nodes].double().cpu().numpy(), labels, candidates)


def _first_best(values: Tensor, legal: Tensor) -> Tensor:
    """Return the first legal candidate of largest value (k, 2N) as (k,) int64; 0 where none is legal."""
    largest = values.masked_fill(~legal, -torch.inf).amax(dim=1, keepdim=True)
    return (legal & (values >= largest - _TIE)).to(torch.int8).argmax(dim=1)


def _explain(sign: int, near: dict[int, float]) -> str:
    """Say in words what speaks against a prompt: whom it looks like, by the nearest of each sign."""
    names = {POSITIVE: "positive", NEGATIVE: "negative"}
    other = NEGATIVE if sign == POSITIVE else POSITIVE
    if near[other] < near[sign]:
        own = f"{near[sign]:.2f}" if np.isfinite(near[sign]) else "none"
        return (
            f"{names[sign]} prompt that looks like a {names[other]} one (feature distance {near[other]:.2f}, "
            f"nearest other {names[sign]} one {own})"
        )
    return f"{names[sign]} prompt that misleads where it lies"
