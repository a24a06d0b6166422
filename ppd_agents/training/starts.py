"""Where training games begin: ideal prompts for the attacker, attacked ones for the defender."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ppd_agents.dqn.agent import Agent, game_state
from ppd_agents.dqn.exploration import draw_legal, masked_argmax
from ppd_agents.dqn.graph_state import GraphState
from ppd_agents.dqn.vec_env import Starts
from ppd_env.errors import PPDError
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE, encode
from ppd_env.game_batch import GameBatch
from ppd_env.prompting.ideal import ideal_prompts
from ppd_env.scenes.bank import SceneBank
from ppd_env.simulator import Simulator


def draw_scenes(count: int, rounds: int, games: int, rng: np.random.Generator) -> Tensor:
    """Draw every round's scenes, none a second time before all were drawn once: (rounds, games) int64."""
    passes = -(-rounds * games // count)
    order = np.concatenate([rng.permutation(count) for _ in range(passes)])
    return torch.from_numpy(order[: rounds * games].reshape(rounds, games))


def draw_ideal(bank: SceneBank, rows: Tensor, layout: str, rng: np.random.Generator) -> Tensor:
    """Draw ideal prompts for the scenes ``rows`` (B,): (B, N) int8."""
    truth, void = bank.truth[rows].cpu().numpy(), bank.void[rows].cpu().numpy()
    known = zip(truth, bank.peak[rows].tolist(), void, strict=True)
    drawn = [ideal_prompts(inside, peak, rng, layout, unknown) for inside, peak, unknown in known]
    return torch.from_numpy(np.stack(drawn)).to(bank.device)


class AttackRunner:
    """Attacks many scenes at once, without decoding where the attacker never looks at masks.

    Args:
        simulator: The scenes.
        label_mode: Signs an attacker may give.
        prompts_per_step: Prompts one action touches.
    """

    def __init__(self, simulator: Simulator, label_mode: str = "free", prompts_per_step: int = 1) -> None:
        self._simulator = simulator
        self._rules = {"label_mode": label_mode, "prompts_per_step": prompts_per_step, "allow_stop": False}

    @torch.no_grad()
    def run(
        self,
        rows: Tensor,
        status: Tensor,
        steps: int | Tensor,
        attacker: Agent | None,
        rng: np.random.Generator,
    ) -> Tensor:
        """Activate candidates in each scene.

        Args:
            rows: (B,) int64.
            status: (B, N) int8, where the attack begins.
            steps: How many candidates, everywhere or (B,) int64.
            attacker: Plays its best legal candidate; None plays a random one.
            rng: Draws the random ones.

        Returns:
            (B, N) int8 after the attack.
        """
        games = GameBatch(self._simulator, len(rows), **self._rules)  # type: ignore[arg-type]
        everyone = games.everyone()
        config = None if attacker is None else attacker.network.config
        seeing = config is not None and config.use_feedback
        lengths = torch.as_tensor(steps, device=status.device).expand(len(rows))
        if config is not None and (seeing or config.use_initial_mask):
            games.begin(everyone, rows, status, lengths, torch.ones_like(rows, dtype=torch.bool))
        games.rows[:], games.status[:], games.attacking[:] = rows, status, True
        for step in range(int(lengths.max())):
            legal = games.legal()
            if attacker is None:
                actions = draw_legal(legal, rng)
            else:
                actions = masked_argmax(attacker.values(game_state(games, everyone, seeing)), legal)
            after = games.preview(everyone, actions, games.attacking).status
            after = torch.where((step < lengths)[:, None], after, games.status)
            if seeing:
                games.place(everyone, after)
            games.status[:] = after
        return games.status.clone()


@torch.no_grad()
def rehearse(
    bank: SceneBank,
    rows: Tensor,
    ideal: Tensor,
    steps: int,
    attacker: Agent,
    initial_mask: Tensor | None,
    pool: int,
    rng: np.random.Generator,
) -> Tensor:
    """Attack scenes without decoding, each step with the best of a random pool of nodes.

    The pool makes it faster, and two attacks on one scene differ.

    Args:
        bank: The scenes.
        rows: (B,) int64.
        ideal: (B, N) int8, the prompts before.
        steps: T.
        attacker: Who attacks; it must not need the segmenter's feedback.
        initial_mask: (B, N) bool where the attacker knows the mask before, else None.
        pool: Nodes looked at in each step.
        rng: Draws the pools.

    Returns:
        (B, T) int64, the actions; -1 where no node of the pool was free.
    """
    status, games, nodes = ideal.clone(), torch.arange(len(rows), device=rows.device), ideal.shape[1]
    actions = torch.full((len(rows), steps), -1, dtype=torch.int64, device=rows.device)
    for step in range(steps):
        keys = torch.from_numpy(rng.random(tuple(status.shape), dtype=np.float32)).to(rows.device)
        drawn = keys.topk(min(pool, nodes), dim=1).indices
        state = GraphState(bank.features, bank.positions, rows, status, initial_mask=initial_mask)
        values = attacker.network.values_at(state, drawn)
        values = values.masked_fill((status.gather(1, drawn) != INACTIVE)[..., None], -torch.inf)
        best = values.transpose(1, 2).flatten(1).argmax(dim=1)
        node = drawn[games, best % drawn.shape[1]]
        free = status[games, node] == INACTIVE
        sign = torch.where(best < drawn.shape[1], POSITIVE, NEGATIVE).to(status.dtype)
        status[games, node] = torch.where(free, sign, status[games, node])
        actions[:, step] = torch.where(free, encode(sign, node, nodes), -1)
    return actions


class RoundStarts:
    """Hands out the beginnings planned for one round.

    Args:
        attacking: Whose games they are.
    """

    def __init__(self, attacking: bool) -> None:
        self._attacking = attacking
        self._plan: Starts | None = None

    def plan(self, rows: Tensor, status: Tensor, steps: Tensor, reference: Tensor) -> None:
        """Set the next round: scenes (B,), prompts (B, N), budgets (B,) and the prompts before the attack."""
        attacking = torch.full_like(rows, self._attacking, dtype=torch.bool)
        self._plan = Starts(rows, status, steps, attacking, reference)

    def draw(self, count: int) -> Starts:
        """Return the planned beginnings, all of them.

        Raises:
            PPDError: Nothing is planned, or another number of games.
        """
        if self._plan is None or len(self._plan.rows) != count:
            raise PPDError(f"No beginnings are planned for {count} games: call plan() before each round.")
        return self._plan


def attack_round(
    runner: AttackRunner,
    rows: Tensor,
    ideal: Tensor,
    steps: int,
    attacker: Agent | None,
    shares: tuple[float, float, float],
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the defender's beginnings of a round.

    Args:
        runner: Plays the attacks.
        rows: (B,) int64.
        ideal: (B, N) int8, the prompts the attacks begin from.
        steps: T.
        attacker: The frozen current attacker, who plays greedily (PPD, Algorithm 1); None attacks at random.
        shares: Chance of a random attack, of none at all, and of an attack of 1..T steps instead of T.
        rng: Draws the kinds and the random attacks.

    Returns:
        status: (B, N) int8.
        lengths: (B,) int64, steps of each attack.
        learned: (B,) bool, which scenes the learned attacker attacked for all T steps.
    """
    coins = torch.from_numpy(rng.random(len(rows))).to(rows.device)
    at_random = coins < shares[0]
    learned = coins >= shares[0] + shares[1]
    partial = torch.from_numpy(rng.random(len(rows))).to(rows.device) < shares[2]
    drawn = torch.from_numpy(rng.integers(1, steps, len(rows), endpoint=True)).to(rows.device)
    lengths = torch.where(partial, drawn, steps) * (at_random | learned)
    status = ideal.clone()
    for chosen, who in ((at_random, None), (learned, attacker)):
        if bool(chosen.any()):
            status[chosen] = runner.run(rows[chosen], ideal[chosen], lengths[chosen], who, rng)
    return status, lengths, learned & ~partial
