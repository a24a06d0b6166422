"""DQN that never plays, tries, prefers or bootstraps from an illegal action."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BasePolicy, maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import DictReplayBufferSamples
from stable_baselines3.common.utils import polyak_update, update_learning_rate
from torch import Tensor
from tqdm import tqdm

from ppd_agents.dqn.aside import Aside
from ppd_agents.dqn.attacks import AttackMemory
from ppd_agents.dqn.exploration import (
    EpsilonSchedule,
    check_masks,
    draw_branches,
    draw_legal,
    epsilon_greedy,
    masked_argmax,
    refuse_illegal,
)
from ppd_agents.dqn.losses import Loss, suspicion_loss, value_loss
from ppd_agents.dqn.policy import GraphPolicy, ObservationQNet
from ppd_agents.dqn.priorities import beta_at
from ppd_agents.dqn.q_network import QNetworkConfig
from ppd_agents.dqn.replay import Batch, SceneReplayBuffer, SceneSamples
from ppd_agents.dqn.roles import refuse_other_role, role_played
from ppd_agents.dqn.updates import PRECISIONS, parts_of, set_gradients
from ppd_env.errors import ConfigError, PPDError
from ppd_env.game.actions import INACTIVE

Observation = dict[str, Any]


class MaskedDQN(DQN):
    """SB3's DQN with action masks, branching and its own random generator.

    The mask of legal actions (``observation["action_mask"]``) acts in four places: warm-up, the epsilon
    branch, the greedy argmax and the maximum in the target. It trains on compact observations (scene row and
    status, with ``SceneReplayBuffer``) or, through SB3's ``DummyVecEnv``, on the plain environment's.

    Args:
        policy: ``"GraphPolicy"`` or a subclass of it.
        env: A ``GameVecEnv``, or anything SB3 takes whose observations have ``status`` and ``action_mask``.
        network: Shape of the Q-network, and the role that is learned; None is the usual shape for the role
            that moves in ``env`` (the attacker where the environment does not tell).
        scenes: (features (S, N, d), positions (N, 2)) where observations are compact.
        truth: (S, N) bool where the attacker may only give a node its true sign.
        rng: The generator all exploration and replay draws come from, or its seed.
        gamma: Discount; 0 learns the one-step worth of an action. The papers do not give it.
        reward_scale: Rewards are multiplied by it, so that the Huber loss works where Dice changes lie.
        double: The online network picks the action the target network values (van Hasselt et al., 2016).
        n_step: Steps the return of a played action looks ahead (Sutton, 1988; not corrected for exploration);
            ``gamma**n`` then discounts what follows. Tried actions were not played on from: they look one
            step ahead.
        prioritised: Replay states by the size of their TD errors (Schaul et al., 2016, proportional: alpha
            0.6, beta from 0.4 to 1 over the training).
        loss: ``"huber"`` or ``"mse"``.
        huber_delta: Where the Huber loss turns linear, in scaled rewards.
        branches: K, further legal actions of each visited state, tried in one decode batch and stored.
        branch_greedy: Share of K chosen by Q-value instead of uniformly.
        attacks: Attacks from whose prompts the Q-network learns its suspicion; needed where it has one, whose
            rewards should then be changes of Dice alone.
        attack_batch: States drawn from them for each gradient step.
        epsilon: Schedule owned by the caller; None: SB3's own, over one ``learn()``.
        precision: ``"float32"``, or ``"bfloat16"``: losses are computed under torch's autocast, which pays on
            a GPU; weights, gradients and targets stay float32.
        overlap: Take gradient steps while the next step of the games is played, by the weights from before
            them; None: on a GPU.
        **kwargs: SB3's DQN arguments.

    Raises:
        ConfigError: The loss is unknown, or n-step returns or priorities are asked of a replay buffer of
            SB3's own.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"GraphPolicy": GraphPolicy}
    q_net: ObservationQNet  # type: ignore[assignment]
    q_net_target: ObservationQNet  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[GraphPolicy],
        env: Any,
        *,
        network: QNetworkConfig | None = None,
        scenes: tuple[Tensor, Tensor] | None = None,
        truth: Tensor | None = None,
        rng: np.random.Generator | int = 0,
        gamma: float = 0.0,
        reward_scale: float = 10.0,
        double: bool = False,
        n_step: int = 1,
        prioritised: bool = False,
        loss: str = "huber",
        huber_delta: float = 1.0,
        branches: int = 0,
        branch_greedy: float = 0.5,
        attacks: AttackMemory | None = None,
        attack_batch: int = 96,
        epsilon: EpsilonSchedule | None = None,
        precision: str = "float32",
        overlap: bool | None = None,
        **kwargs: Any,
    ) -> None:
        self.rng = np.random.default_rng(rng)
        env = maybe_make_env(env, kwargs.get("verbose", 0))
        self.network_config = network or QNetworkConfig(role=role_played(env))
        self.truth = truth
        self.reward_scale, self.double = reward_scale, double
        self.n_step, self.prioritised = n_step, prioritised
        self.loss = Loss(loss, huber_delta)
        self.branches, self.branch_greedy = branches, branch_greedy
        self.epsilon = epsilon
        if precision not in PRECISIONS:
            raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}.")
        self.precision, self.overlap = precision, overlap
        if bool(self.network_config.suspicion) != (attacks is not None):
            raise ConfigError(
                "A Q-network with suspicion needs attacks to learn it from, and only such a one."
            )
        self.attacks, self.attack_batch = attacks, attack_batch
        own = {"network": self.network_config, "scenes": scenes, "init_seed": int(self.rng.integers(2**31))}
        policy_kwargs = own | dict(kwargs.pop("policy_kwargs", None) or {})
        super().__init__(policy, env, gamma=gamma, policy_kwargs=policy_kwargs, **kwargs)

    def _setup_model(self) -> None:
        space = self.observation_space
        compact = (
            isinstance(space, spaces.Dict) and "scene" in space.spaces and "features" not in space.spaces
        )
        if compact and self.replay_buffer_class in (None, SceneReplayBuffer):
            self.replay_buffer_class = SceneReplayBuffer
            self.replay_buffer_kwargs = {
                "attacking": self.network_config.role == "attacker",
                "rng": self.rng,
                "truth": self.truth,
                "tried": self.branches,
                "n_step": self.n_step,
                "gamma": self.gamma,
                "prioritised": self.prioritised,
            }
        elif self.n_step != 1 or self.prioritised:
            raise ConfigError(
                "n_step and prioritised need SceneReplayBuffer: train on compact observations, such as those "
                "of a GameVecEnv, and leave replay_buffer_class alone."
            )
        super()._setup_model()
        if self.epsilon is not None:
            self.exploration_rate = self.epsilon.value
        self._aside: Aside[list[tuple[Batch, Tensor, Tensor]]] = Aside(self.device)
        aside = self.device.type == "cuda" if self.overlap is None else self.overlap
        self._actor = self.policy.make_q_net() if aside else None

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_aside", "_actor"]

    def tensors(self, observation: Observation) -> tuple[dict[str, Tensor], Tensor]:
        """Return a batch of observations as tensors and its masks (B, A) bool.

        Raises:
            PPDError: A mask is all zero.
        """
        tensors = observation
        if not all(isinstance(values, Tensor) for values in observation.values()):
            found, _ = self.policy.obs_to_tensor(observation)
            assert isinstance(found, dict)
            tensors = found
        masks = tensors["action_mask"].bool()
        check_masks(masks)
        return tensors, masks

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        assert isinstance(self._last_obs, dict)
        tensors, masks = self.tensors(self._last_obs)
        warm_up = self.num_timesteps < learning_starts
        with torch.no_grad():
            acting = self._actor if self._actor is not None and self._aside.busy else self.q_net
            values = torch.zeros(masks.shape, device=masks.device) if warm_up else acting(tensors)
        if warm_up:
            actions = draw_legal(masks, self.rng)
        else:
            actions = epsilon_greedy(masked_argmax(values, masks), masks, self.exploration_rate, self.rng)
        refuse_illegal(actions, masks)
        if self.branches:
            others = masks.scatter(1, actions[:, None], False)
            # No value is known in warm-up: the best by value would be the lowest numbers.
            self._branch(values, others, self._last_obs, 0.0 if warm_up else self.branch_greedy)
        chosen = actions.cpu().numpy()
        return chosen, chosen

    def _branch(self, values: Tensor, masks: Tensor, observation: Observation, greedy_share: float) -> None:
        """Try K further actions of each state, a share of them the best, and store what they would bring."""
        if not isinstance(self.replay_buffer, SceneReplayBuffer) or not hasattr(self.env, "branch"):
            raise PPDError("branches > 0 needs a GameVecEnv, whose games can be tried without being played.")
        actions, useful = draw_branches(values, masks, self.branches, greedy_share, self.rng)
        live = useful.any(dim=1).nonzero().flatten()
        if not len(live):
            return
        assert self.env is not None
        tried = self.env.branch(live, actions[live])
        self.replay_buffer.hold_tried(live, observation, actions[live], useful[live], tried)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Choose a legal action for each observation.

        Args:
            observation: One observation or a batch of them.
            state: Passed through.
            episode_start: Unused.
            deterministic: Without exploration.

        Returns:
            int64 actions, and ``state``.

        Raises:
            PPDError: A mask is all zero.
        """
        actions, state = self.policy.predict(observation, state, episode_start, deterministic)
        if deterministic:
            return actions, state
        assert isinstance(observation, dict)
        _, masks = self.tensors(observation)
        greedy = torch.from_numpy(np.atleast_1d(actions)).to(masks.device)
        drawn = epsilon_greedy(greedy, masks, self.exploration_rate, self.rng).cpu().numpy()
        return drawn.reshape(np.shape(actions)), state

    def _on_step(self) -> None:
        super()._on_step()
        if self.epsilon is not None:
            self.exploration_rate = self.epsilon.value
            self.logger.record("rollout/exploration_rate", self.exploration_rate)

    def load_replay_buffer(self, path: Any, truncate_last_traj: bool = True) -> None:
        """Take up a memory SB3 pickled, which must be your own; this model's generator draws from it."""
        super().load_replay_buffer(path, truncate_last_traj)
        if isinstance(self.replay_buffer, SceneReplayBuffer):
            self.replay_buffer.rng = self.rng

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        prepared = super()._setup_learn(*args, **kwargs)
        tensors, masks = self.tensors(cast(Observation, self._last_obs))
        refuse_other_role(tensors["status"], masks, self.network_config.role)
        return prepared

    def learn(self, *args: Any, **kwargs: Any) -> Self:
        """Play and learn as SB3's ``learn``, and leave no gradient step under way.

        Raises:
            ConfigError: The games are the other role's.
        """
        try:
            return super().learn(*args, **kwargs)
        finally:
            self.finish_updates()

    def _store_transition(self, *args: Any, **kwargs: Any) -> None:
        # What follows a step of the games changes the memory and the target network.
        self.finish_updates()
        super()._store_transition(*args, **kwargs)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Take ``gradient_steps`` of ``batch_size`` transitions each, or begin them where they overlap."""
        self.finish_updates()
        self._update_learning_rate(self.policy.optimizer)
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if self._actor is None:
            self._log([self._gradient_step(batch_size) for _ in range(gradient_steps)])
            return
        self._actor.load_state_dict(self.q_net.state_dict())
        # Whatever is drawn is drawn here, so that the result does not depend on who is faster.
        batches = [self._draw_batch(batch_size) for _ in range(gradient_steps)]
        rng = np.random.default_rng(self.rng.integers(2**62))
        self._aside.start(lambda: [(batch, *self._learn_from(batch, rng)) for batch in batches])

    def finish_updates(self) -> None:
        """Wait for gradient steps that are under way, if any are."""
        learned = self._aside.finish()
        if learned is not None:
            for batch, _, errors in learned:
                self._reweigh(batch, errors)
            self._log([loss for _, loss, _ in learned])

    def _log(self, losses: Sequence[Tensor]) -> None:
        if losses:
            self.logger.record("train/loss", float(np.mean([float(loss) for loss in losses])))

    def study(self, updates: int, learning_rate: float, bar: tqdm | None = None) -> None:
        """Learn on from the remembered attacks alone, without another step of the games.

        Attackers grow while they play, so most of what is met on the way stems from weaker ones. Suspicion
        alone learns; that part of the target network follows by as much as in as many updates of a training.

        Args:
            updates: Gradient steps.
            learning_rate: Of the first one; it falls linearly, the last one has a share of 1 / updates of it.
            bar: Advances by one per update.

        Raises:
            ConfigError: The agent remembers no attacks.
        """
        if self.attacks is None:
            raise ConfigError("Only a Q-network with suspicion learns from attacks alone.")
        # Updates of the network between two of the target.
        every = max(1, self.gradient_steps) * max(1, self.target_update_interval // self.n_envs)
        for update in range(updates):
            update_learning_rate(self.policy.optimizer, learning_rate * (1 - update / updates))
            self._descend(self.suspicion_losses(self.attacks.sample(self.attack_batch, self.rng)), self.rng)
            tau = self.tau / every if self.tau < 1 else float((update + 1) % every == 0)
            pairs = zip(self.q_net.parameters(), self.q_net_target.parameters(), strict=True)
            learning = [(mine, its) for mine, its in pairs if mine.grad is not None]
            polyak_update([mine for mine, _ in learning], [its for _, its in learning], tau)
            if bar is not None:
                bar.update()
        self._n_updates += updates

    def suspicion_losses(self, drawn: tuple[Tensor, Tensor, Tensor]) -> list[Callable[[], Tensor]]:
        """Return the parts of the cross-entropy of telling the attacks' prompts (``AttackMemory.sample``)."""
        prompts = int((drawn[1] != INACTIVE).sum())  # counted on the host, where they are drawn
        rows, status, foreign = (values.to(self.device) for values in drawn)
        loss = partial(suspicion_loss, self.q_net, rows, status, foreign, prompts)
        return [partial(loss, which) for which in parts_of(status)]

    def value_losses(
        self, data: SceneSamples | DictReplayBufferSamples, target: Tensor, current: Tensor
    ) -> list[Callable[[], Tensor]]:
        """Return the parts of the loss of values against ``target`` (B, 1); they fill ``current`` (B, 1)."""
        loss = partial(value_loss, self.q_net, self.loss, data, target, current)
        return [partial(loss, which) for which in parts_of(data.observations["status"])]

    def _gradient_step(self, batch_size: int) -> Tensor:
        """Learn from one batch and return its loss, for which nobody need wait on a GPU."""
        batch = self._draw_batch(batch_size)
        loss, errors = self._learn_from(batch, self.rng)
        self._reweigh(batch, errors)
        return loss

    def _learn_from(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Take a gradient step; return its loss and its TD errors (B, 1)."""
        target = self.targets(batch.data)
        current = torch.empty_like(target)
        losses = self.value_losses(batch.data, target, current)
        if batch.attacked is not None:
            losses += self.suspicion_losses(batch.attacked)
        return self._descend(losses, rng), target - current

    def _descend(self, losses: Sequence[Callable[[], Tensor]], rng: np.random.Generator) -> Tensor:
        """Take a gradient step on the sum of ``losses`` and return it."""
        self.q_net.set_training_mode(True)
        loss = set_gradients(losses, list(self.q_net.parameters()), rng, PRECISIONS[self.precision])
        self.q_net.set_training_mode(False)
        torch.nn.utils.clip_grad_norm_(self.q_net.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        return loss

    def _reweigh(self, batch: Batch, errors: Tensor) -> None:
        """Let the memory know what a batch taught."""
        if isinstance(batch.data, SceneSamples):
            assert isinstance(self.replay_buffer, SceneReplayBuffer)
            self.replay_buffer.reweigh(batch.data, errors)

    def _draw_batch(self, batch_size: int) -> Batch:
        data, attacks = self._draw(batch_size), self.attacks
        return Batch(data, None if attacks is None else attacks.sample(self.attack_batch, self.rng))

    def _draw(self, batch_size: int) -> SceneSamples | DictReplayBufferSamples:
        if isinstance(self.replay_buffer, SceneReplayBuffer):
            return self.replay_buffer.sample(batch_size, beta=beta_at(self.progress))
        assert self.replay_buffer is not None
        return cast(DictReplayBufferSamples, self.replay_buffer.sample(batch_size))

    @property
    def progress(self) -> float:
        """Share of the training that is behind us: of the schedule, or of ``learn()`` where there is none."""
        return 1 - self._current_progress_remaining if self.epsilon is None else self.epsilon.progress

    @torch.no_grad()
    def targets(self, data: SceneSamples | DictReplayBufferSamples) -> Tensor:
        """Return the TD targets of PPD's eq. 7 with the maximum over legal actions only, (B, 1) float32.

        Replay does not keep which prompts were seen and removed, so the next move is chosen by suspicions of
        those that are left; in play, of all that were seen. Without discount (gamma 0) nothing is chosen.
        """
        rewards = data.rewards * self.reward_scale
        if self.gamma == 0:
            return rewards
        masks = data.next_observations["action_mask"].bool()
        chooser = self.q_net if self.double else self.q_net_target
        # The move is chosen by the whole value, and valued by what it brings in Dice.
        values = chooser(data.next_observations)
        best = masked_argmax(values, masks)
        if self.double or self.network_config.suspicion:
            values = self.q_net_target(data.next_observations, dice_only=True)
        following = values.gather(1, best[:, None])
        discounts = self.gamma if data.discounts is None else data.discounts
        return rewards + (1 - data.dones) * discounts * following
