"""B games that share a simulator: what every shell and every learner calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ppd_env.errors import PPDError
from ppd_env.game.actions import INACTIVE, action_count, legal_actions, node_of, only_stop
from ppd_env.game.rules import Move, apply_actions, rewards
from ppd_env.graph.distances import pairwise_distance
from ppd_env.simulator import Segmentation, Simulator, covered

INVALID_PENALTY = 0.1
"""What ``invalid_action="penalty"`` takes off the reward, outside the telescoping sum."""

_STATE: tuple[str, ...] = (
    *("rows", "status", "seen", "changed", "attacking", "steps_left", "steps_total"),
    *("initial_mask", "initial_dice", "dice", "predicted_iou", "logits"),
)


class StepResult(NamedTuple):
    """What one action in each of k games brought.

    Attributes:
        reward: (k,) float32, the Dice change, its sign flipped for the attacker.
        terminated: (k,) bool, STOP, or nothing but STOP is legal now.
        truncated: (k,) bool, the step budget is used up (never together with ``terminated``).
        invalid: (k,) bool, the action was illegal.
    """

    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    invalid: Tensor


Further = Callable[[Tensor], tuple[Tensor, Tensor] | None]
"""Told (k,) bool which games are about to end, returns more prompt sets: rows (m,) and statuses (m, N)."""


class Branches(NamedTuple):
    """What each of K actions of k games' present states would do.

    Attributes:
        reward: (k, K) float32.
        status: (k, K, N) int8 afterwards.
        terminated: (k, K) bool.
        segmentation: Of the k * K states afterwards, game by game.
    """

    reward: Tensor
    status: Tensor
    terminated: Tensor
    segmentation: Segmentation


class GameBatch:
    """B games on the scenes of one bank.

    Args:
        simulator: Decodes the prompt sets.
        size: B.
        label_mode: ``"free"``: an attacker may give a node either sign; ``"truth"``: the true one only.
        allow_stop: STOP is always legal; otherwise only where nothing else is.
        prompts_per_step: k, prompts one action touches.
        invalid_action: ``"noop"``, ``"penalty"`` or ``"raise"``.

    Attributes:
        rows: (B,) int64, each game's row of the bank.
        status: (B, N) int8.
        seen: (B, N) int8, the last sign of every node that was a prompt at some time since the game began.
        dice, initial_dice, predicted_iou: (B,) float32.
        logits: (B, h, w) float32, the present masks.
        steps_left, steps_total: (B,) int64.
        attacking: (B,) bool.
        changed: (B, N) bool, nodes the last move touched.
        initial_mask: (B, N) bool, nodes the mask covered when the game began (``covered``).
    """

    def __init__(
        self,
        simulator: Simulator,
        size: int,
        *,
        label_mode: str = "free",
        allow_stop: bool = True,
        prompts_per_step: int = 1,
        invalid_action: str = "noop",
    ) -> None:
        self.simulator = simulator
        self.size = size
        self.label_mode = label_mode
        self.allow_stop = allow_stop
        self.prompts_per_step = prompts_per_step
        self.invalid_action = invalid_action
        device, nodes, side = simulator.bank.device, simulator.nodes, simulator.segmenter.low_res
        self.rows = torch.zeros(size, dtype=torch.int64, device=device)
        self.status = torch.zeros((size, nodes), dtype=torch.int8, device=device)
        self.seen = torch.zeros_like(self.status)
        self.changed = torch.zeros((size, nodes), dtype=torch.bool, device=device)
        self.initial_mask = torch.zeros((size, nodes), dtype=torch.bool, device=device)
        self.dice = torch.zeros(size, device=device)
        self.initial_dice = torch.zeros(size, device=device)
        self.predicted_iou = torch.zeros(size, device=device)
        self.logits = torch.zeros((size, side, side), device=device)
        self.steps_left = torch.zeros(size, dtype=torch.int64, device=device)
        self.steps_total = torch.zeros(size, dtype=torch.int64, device=device)
        self.attacking = torch.zeros(size, dtype=torch.bool, device=device)
        self._known_legal: tuple[tuple[int, ...], Tensor] | None = None

    @property
    def nodes(self) -> int:
        """N."""
        return self.status.shape[1]

    def state_dict(self) -> dict[str, Tensor]:
        """Return every tensor that changes while the games are played, by attribute name."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a ``state_dict`` of as many games on the same bank."""
        for name in _STATE:
            getattr(self, name).copy_(state[name])

    def everyone(self) -> Tensor:
        """Return the indices of all games, (B,) int64."""
        return torch.arange(self.size, device=self.status.device)

    def begin(
        self,
        which: Tensor,
        rows: Tensor,
        status: Tensor,
        steps: Tensor,
        attacking: Tensor,
        known: Segmentation | None = None,
    ) -> None:
        """Start the k games ``which`` anew, in one decode batch.

        Args:
            which: (k,) int64.
            rows: (k,) int64, rows of the bank.
            status: (k, N) int8, the prompts they start from.
            steps: (k,) int64, step budgets.
            attacking: (k,) bool.
            known: What those prompts decode to, where they have been decoded; else they are now.
        """
        self.deal(which, rows, status, steps, attacking)
        which = which.to(self.status.device)
        self._keep(which, self.simulator.segment(rows, status) if known is None else known)
        self.initial_dice[which] = self.dice[which]
        self.initial_mask[which] = covered(self.feedback(which))

    def deal(self, which: Tensor, rows: Tensor, status: Tensor, steps: Tensor, attacking: Tensor) -> None:
        """Put the games ``which`` into place as ``begin`` does, and decode nothing."""
        device = self.status.device
        which = which.to(device)
        self.rows[which], self.status[which] = rows.to(device), status.to(device)
        self.seen[which] = self.status[which]
        self.steps_left[which] = self.steps_total[which] = steps.to(device)
        self.attacking[which] = attacking.to(device)
        self.changed[which] = False

    def twin(self) -> GameBatch:
        """Return as many games of the same rules and scenes, not yet begun."""
        return GameBatch(
            self.simulator,
            self.size,
            label_mode=self.label_mode,
            allow_stop=self.allow_stop,
            prompts_per_step=self.prompts_per_step,
            invalid_action=self.invalid_action,
        )

    def change_role(self, which: Tensor, steps: Tensor, attacking: Tensor) -> None:
        """Go on with the games ``which`` where they stand, in another role and with ``steps`` (k,) to play.

        Their present Dice becomes the initial one; nothing is decoded.
        """
        self.steps_left[which] = self.steps_total[which] = steps.to(self.status.device)
        self.attacking[which] = attacking.to(self.status.device)
        self.initial_dice[which] = self.dice[which]

    def legal(self, which: Tensor | None = None, attacking: Tensor | None = None) -> Tensor:
        """Mark the legal actions.

        Args:
            which: (k,) int64, the games asked about; all where None.
            attacking: (k,) bool, ask for this role instead of the one to move.

        Returns:
            (k, A) bool.
        """
        if attacking is None:
            known = self._known_legal
            if known is not None and known[0] == self._state_version():
                return known[1].clone() if which is None else known[1][which]
            if which is None:
                return self._remember_legal(self._legal(self.rows, self.status, self.attacking)).clone()
        which = self.everyone() if which is None else which
        mover = self.attacking[which] if attacking is None else attacking
        return self._legal(self.rows[which], self.status[which], mover)

    def _remember_legal(self, legal: Tensor) -> Tensor:
        """Keep the legal actions of all games for as long as nothing is written into what decides them."""
        version = self._state_version()
        self._known_legal = (version, legal) if version else None
        return legal

    def _state_version(self) -> tuple[int, ...]:
        """Return what changes with every write into rows, prompts or roles; empty where torch cannot tell."""
        deciding = (self.rows, self.status, self.attacking)
        if any(tensor.is_inference() for tensor in deciding):
            return ()
        return tuple(number for tensor in deciding for number in (id(tensor), tensor._version))

    def _legal(self, rows: Tensor, status: Tensor, attacking: Tensor) -> Tensor:
        truth = self.simulator.bank.truth[rows] if self.label_mode == "truth" else None
        return legal_actions(status, attacking, truth=truth, allow_stop=self.allow_stop)

    def step(self, actions: Tensor, which: Tensor | None = None) -> StepResult:
        """Play one action in each of k games, in one decode batch.

        Args:
            actions: (k,) int64.
            which: (k,) int64, the games that move; all where None.

        Returns:
            The result, leading axis k.

        Raises:
            PPDError: An action is illegal and ``invalid_action`` is ``"raise"``, or outside [0, 2N].
        """
        return self.step_beside(actions, None, which)[0]

    def step_beside(
        self, actions: Tensor, further: Further | None, which: Tensor | None = None
    ) -> tuple[StepResult, Segmentation | None]:
        """Play as ``step`` does, and decode other prompt sets in the same batch.

        Whether a game ends is known before its mask is, so the games that take their place can be decoded
        together with its last state.

        Args:
            actions: (k,) int64.
            further: Asked for the other prompt sets; None: there are none.
            which: (k,) int64, the games that move; all where None.

        Returns:
            The result, and the segmentation of the other prompt sets, None where there were none.
        """
        everyone = which is None
        legal = self.legal(which)
        which = self.everyone() if which is None else which.to(self.status.device)
        actions = actions.to(self.status.device)
        rows, attacking, before = self.rows[which], self.attacking[which], self.dice[which]
        move = self._move(rows, self.status[which], actions, attacking, legal)
        if self.invalid_action == "raise" and bool(move.invalid.any()):
            raise PPDError(_illegal_message(actions, move.invalid))
        legal = self._legal(rows, move.status, attacking)
        terminated = move.stopped | only_stop(legal)
        truncated = (self.steps_left[which] <= 1) & ~terminated
        other = None if further is None else further(terminated | truncated)
        decoded = self._place(which, move.status, other)
        if everyone:
            self._remember_legal(legal)
        self.steps_left[which] -= 1
        reward = rewards(before, self.dice[which], attacking)
        if self.invalid_action == "penalty":
            reward = reward - INVALID_PENALTY * move.invalid
        return StepResult(reward, terminated, truncated, move.invalid), decoded

    def skip(self, actions: Tensor, which: Tensor) -> Tensor:
        """Play one action in each of the games ``which`` without decoding, for movers that look at no mask.

        Dice and masks stay those of the state before, until the next ``begin``.

        Args:
            actions: (k,) int64.
            which: (k,) int64.

        Returns:
            (k,) bool, the role's episode is over.
        """
        rows, attacking = self.rows[which], self.attacking[which]
        move = self._move(rows, self.status[which], actions.to(self.status.device), attacking)
        self._show(which, move.status, move.changed)
        self.steps_left[which] -= 1
        return move.stopped | only_stop(self.legal(which)) | (self.steps_left[which] <= 0)

    def place(self, which: Tensor, status: Tensor) -> None:
        """Put the games ``which`` into ``status`` (k, N); only those whose prompts differ are decoded."""
        self._place(which.to(self.status.device), status.to(self.status.device), None)

    def _place(
        self, which: Tensor, status: Tensor, other: tuple[Tensor, Tensor] | None
    ) -> Segmentation | None:
        """Do what ``place`` does; return the segmentation of ``other`` prompt sets from the same batch."""
        changed = status != self.status[which]
        moved = changed.any(dim=1).nonzero().squeeze(1)
        rows, wanted, found = self.rows[which[moved]], status[moved], None
        if other is not None:
            rows = torch.cat([rows, other[0].to(rows.device)])
            wanted = torch.cat([wanted, other[1].to(wanted.device)])
        if len(rows):
            decoded = self.simulator.segment(rows, wanted)
            self._keep(which[moved], decoded[: len(moved)])
            found = None if other is None else decoded[len(moved) :]
        self._show(which, status, changed)
        return found

    def _show(self, which: Tensor, status: Tensor, changed: Tensor) -> None:
        """Let the games ``which`` have the prompts ``status`` (k, N), of which ``changed`` (k, N) are new."""
        self.status[which], self.changed[which] = status, changed
        self.seen[which] = torch.where(status != INACTIVE, status, self.seen[which])

    @torch.no_grad()
    def branch(self, actions: Tensor, which: Tensor | None = None) -> Branches:
        """Tell what each of K actions of the present states would do; nothing changes.

        Equal results are decoded once, in one decode batch; penalties for illegal actions are left out.

        Args:
            actions: (k, K) int64.
            which: (k,) int64, the games asked about; all where None.

        Returns:
            The branches, leading axes (k, K).
        """
        which = self.everyone() if which is None else which.to(self.status.device)
        games, width = actions.shape
        parent = which.repeat_interleave(width)
        attacking, rows = self.attacking[parent], self.rows[parent]
        move = self._move(rows, self.status[parent], actions.to(self.status.device).flatten(), attacking)
        after = self._present(parent)
        moved = move.changed.any(dim=1).nonzero().squeeze(1)
        if len(moved):
            decoded = self.simulator.segment(rows[moved], move.status[moved])
            after.dice[moved], after.predicted_iou[moved] = decoded.dice, decoded.predicted_iou
            after.logits[moved] = decoded.logits
        reward = rewards(self.dice[parent], after.dice, attacking)
        terminated = move.stopped | only_stop(self._legal(rows, move.status, attacking))
        shape = (games, width)
        return Branches(reward.view(shape), move.status.view(*shape, -1), terminated.view(shape), after)

    def feedback(self, which: Tensor | None = None) -> Tensor:
        """Return the share of predicted foreground in each node's patch now, (k, N) float32 in [0, 1]."""
        which = self.everyone() if which is None else which
        return self.simulator.feedback(self.rows[which], self.logits[which])

    def preview(self, which: Tensor, actions: Tensor, attacking: Tensor) -> Move:
        """Return what ``actions`` (k,) of a role (k,) bool would do to the prompts; nothing is decoded."""
        return self._move(self.rows[which], self.status[which], actions.to(self.status.device), attacking)

    def _move(
        self,
        rows: Tensor,
        status: Tensor,
        actions: Tensor,
        attacking: Tensor,
        legal: Tensor | None = None,
    ) -> Move:
        """Apply ``actions`` (k,) to statuses (k, N) of the scenes ``rows`` (k,)."""
        if bool(((actions < 0) | (actions >= action_count(self.nodes))).any()):
            raise PPDError(f"Actions must lie in [0, {2 * self.nodes}], got {actions.tolist()}.")
        distance = None
        if self.prompts_per_step > 1:
            features = self.simulator.bank.features
            chosen = features[rows, node_of(actions, self.nodes)]
            distance = pairwise_distance(chosen[:, None], features[rows]).squeeze(1)
        return apply_actions(
            status,
            actions,
            attacking,
            self._legal(rows, status, attacking) if legal is None else legal,
            prompts_per_step=self.prompts_per_step,
            feature_distance=distance,
        )

    def _present(self, which: Tensor) -> Segmentation:
        """Return a copy of the present segmentation of the games ``which``."""
        return Segmentation(self.dice[which], self.predicted_iou[which], self.logits[which])

    def _keep(self, which: Tensor, segmentation: Segmentation) -> None:
        self.dice[which] = segmentation.dice
        self.predicted_iou[which] = segmentation.predicted_iou
        self.logits[which] = segmentation.logits


def _illegal_message(actions: Tensor, invalid: Tensor) -> str:
    listed = ", ".join(str(a) for a in actions[invalid].tolist()[:5])
    return (
        f"Illegal action(s) {listed}: choose where the action mask is 1, or make the environment "
        'with invalid_action="noop".'
    )
