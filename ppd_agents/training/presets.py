"""Configurations of the alternation: our quick default and the two published versions of PPD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_args

from ppd_agents.dqn.q_network import QNetworkConfig
from ppd_agents.training.checks import check_training
from ppd_env.errors import ConfigError
from ppd_env.game.actions import Role


@dataclass(frozen=True)
class TrainConfig:
    """Everything ``train_adversarial`` needs to know.

    Args:
        preset: Name of the preset it came from.
        scenes: URI of the training scenes.
        segmenter: URI of the segmenter.
        features: URI of the patch features.
        grid: Patches per side.
        device: A torch device.
        layout: Layout of the ideal prompts.
        label_mode: Signs an attacker may give: ``"free"`` or ``"truth"``.
        prompts_per_step: Prompts one action touches.
        rounds: Rounds of the alternation; in each both agents play one episode on every drawn scene.
        games: B, scenes drawn per round and played side by side.
        steps: Bounds of T, drawn once per round; both roles get the same T.
        branches: K, further actions tried in each visited state.
        branch_greedy: Share of K chosen by value.
        gamma: Discount; the papers do not give it (0.9 in the authors' earlier code).
        double: Double DQN.
        dueling: Dueling Q-networks (``QNetworkConfig``).
        n_step: Steps the return of a played action looks ahead; 1 is plain DQN (``MaskedDQN``).
        prioritised: Replay states by the size of their TD errors (Schaul et al., 2016).
        loss: ``"huber"`` or ``"mse"``.
        huber_delta: Where the Huber loss turns from square to linear, in scaled rewards.
        reward_scale: Rewards are multiplied by it. At 1 no error of a one-step value leaves the quadratic
            part of the Huber loss, so that values are means; the linear one makes light of rare losses.
        learning_rate: Adam's at the start.
        final_learning_rate: Adam's at the end; linear between.
        batch_size: Transitions per gradient step.
        gradient_steps: Gradient steps per environment step.
        learning_starts: Games' steps of pure random play at the start of each agent.
        buffer_size: Transitions kept per agent.
        target_update: Environment steps between updates of the target network; the count never restarts.
        tau: Share of the online network in each update; below 1 the target network is an average over time,
            and is what plays against the other role and is kept in the end.
        epsilon: First and last epsilon; linear over the whole training.
        hidden: Width of the Q-network.
        layers: Hidden layers of the Q-network.
        members: Q-networks of each role that learn side by side and judge together (``QNetworkConfig``).
        messages: Numbers each prompt, and each landmark, tells in the Q-network; 0: none.
        landmarks: Nodes per side of the image that tell as prompts do, active or not (``QNetworkConfig``).
        dropout: Of the Q-network's hidden units.
        weight_decay: Of the optimiser (AdamW).
        raw_features: The Q-networks see the patch features themselves too, not distances alone; agents are
            then tied to the features they were trained on.
        feedback: Which role sees the segmenter's own answer: ``"none"``, ``"attacker"``, ``"defender"`` or
            ``"both"``. A defender that does needs a segmenter in ``refine()``.
        initial_mask: The attacker sees which nodes the mask covered before it began, as near as it gets to
            the ground truth.
        random_attack_share: Share of the defender's starts with a random attack instead of the learned one.
        opponent_pool: Past attackers, one of which the defender meets in a round with a chance of 1/2.
        clean_share: Share of the defender's starts without any attack.
        noise_share: Share of the defender's starts, and of the rehearsals, with random prompts.
        matching_share: The same with prompts from feature matching (``bad_starts``).
        partial_share: Share of the defender's starts whose attack has 1..T steps instead of T.
        reward: What the defender learns from: ``"dice"``, or ``"graph-statistics"``, a control that sees no
            mask (``GraphStatistics``); the attacker always learns from Dice.
        shaping: What each prompt of the attack that the defender removes adds to its reward in training
            (``AttackLeft``), and each other one takes off; 0 learns from changes of Dice alone.
        rehearsals: Further scenes attacked per round, without decoding, to teach the defender which prompts
            come from attacks: then shaping is not met as a reward but learned by an output of its own, from
            all prompts of every state (``QNetworkConfig.suspicion``); 0 leaves it to the reward.
        final_rehearsals: Rounds' worth of rehearsals against the trained attacker, before the final updates,
            which then learn from these alone.
        final_updates: Gradient steps the defender takes after the last round on remembered attacks, without
            another decode; the learning rate falls from ``learning_rate`` to 0. None without rehearsals.
        final_shaping: What suspicion counts for the trained defender, where rehearsals taught it.
        attack_pool: Random nodes the attacker chooses from in each step of a rehearsal.
        least_gain: What a removal must be valued at by the trained defender; decides nothing during training.
            One that learned no suspicion, without rehearsals, goes by the sign of its values.
        further_gain: The same after its first removal of an episode (``Agent``); may be negative.
        seed: Seed of everything.
        checkpoint_every: Rounds between checkpoints.
        keep: Checkpoints kept.
        tensorboard: Write TensorBoard files beside the CSV ones.
        wandb: ``"off"`` (nothing is sent or written), ``"offline"`` (no account needed) or ``"online"``.
        progress: Show progress bars.
    """

    preset: str = "mini"
    scenes: str = "shapes://train?count=640&seed=0"
    segmenter: str = "mini"
    features: str = "mini"
    grid: int = 16
    device: str = "cpu"
    layout: str = "jittered"
    label_mode: str = "free"
    prompts_per_step: int = 1
    rounds: int = 16
    games: int = 40
    steps: tuple[int, int] = (2, 20)
    branches: int = 4
    branch_greedy: float = 0.5
    gamma: float = 0.0
    double: bool = False
    dueling: bool = False
    n_step: int = 1
    prioritised: bool = False
    loss: str = "huber"
    huber_delta: float = 1.0
    reward_scale: float = 1.0
    learning_rate: float = 1.5e-3
    final_learning_rate: float = 1e-4
    batch_size: int = 512
    gradient_steps: int = 4
    learning_starts: int = 48
    buffer_size: int = 150_000
    target_update: int = 1
    tau: float = 0.05
    epsilon: tuple[float, float] = (0.5, 0.05)
    hidden: int = 96
    layers: int = 2
    members: int = 3
    messages: int = 8
    landmarks: int = 8
    dropout: float = 0.2
    weight_decay: float = 0.05
    raw_features: bool = False
    feedback: str = "none"
    initial_mask: bool = True
    random_attack_share: float = 0.1
    opponent_pool: int = 0
    clean_share: float = 0.4
    noise_share: float = 0.0
    matching_share: float = 0.25
    partial_share: float = 0.25
    reward: str = "dice"
    shaping: float = 0.1
    final_shaping: float = 1.0
    rehearsals: int = 160
    final_rehearsals: int = 16
    final_updates: int = 2000
    attack_pool: int = 64
    least_gain: float = 0.5
    further_gain: float = 0.0
    seed: int = 0
    checkpoint_every: int = 4
    keep: int = 2
    tensorboard: bool = True
    wandb: str = "off"
    progress: bool = True

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_training(self)

    @property
    def mixed_share(self) -> float:
        """Share of the defender's starts that are not under the learned attack."""
        return self.random_attack_share + self.clean_share

    @property
    def studies(self) -> int:
        """Gradient steps of the defender after the last round."""
        return self.final_updates if self.rehearsals else 0

    def gains(self, role: Role) -> tuple[float, float]:
        """Return what a trained agent's first action must be valued at, and what those that follow."""
        careful = role == "defender" and self.rehearsals
        return (self.least_gain, self.further_gain) if careful else (0.0, 0.0)

    @property
    def features_uri(self) -> str:
        """URI of the features, naming the segmenter where its own embedding is meant."""
        return f"segmenter:{self.segmenter}" if self.features == "segmenter" else self.features

    def network(self, role: Role, dim: int) -> QNetworkConfig:
        """Return the shape of one agent's Q-network.

        Args:
            role: Whose.
            dim: Length d of the patch features.
        """
        return QNetworkConfig(
            role=role,
            hidden=self.hidden,
            layers=self.layers,
            members=self.members,
            messages=self.messages,
            landmarks=self.landmarks,
            dropout=self.dropout,
            dueling=self.dueling,
            raw_features=dim if self.raw_features else 0,
            use_feedback=self.feedback in (role, "both"),
            use_initial_mask=self.initial_mask and role == "attacker",
            suspicion=self.shaping * self.reward_scale if self.rehearsals and role == "defender" else 0.0,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers, strings and lists."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def decisive(self) -> dict[str, Any]:
        """Return what decides the result, for telling whether a checkpoint belongs to this run."""
        bystanders = ("checkpoint_every", "keep", "tensorboard", "wandb", "progress")
        return {name: value for name, value in self.to_json().items() if name not in bystanders}


_ARXIV = TrainConfig(
    preset="ppd-arxiv",
    scenes="fss1000://?split=train&count=1000",
    segmenter="sam:facebook/sam-vit-huge",
    features="dinov2:facebook/dinov2-base",
    grid=40,
    layout="lattice",
    rounds=1000,
    games=1,
    steps=(50, 300),
    epsilon=(1.0, 0.1),
    branches=0,
    gamma=0.9,
    learning_rate=1e-4,
    final_learning_rate=1e-4,
    batch_size=128,
    gradient_steps=1,
    learning_starts=128,
    buffer_size=10_000,
    random_attack_share=0.0,
    clean_share=0.0,
    partial_share=0.0,
    matching_share=0.0,
    shaping=0.0,
    target_update=100,
    tau=1.0,
    hidden=160,
    members=1,
    messages=0,
    landmarks=0,
    initial_mask=False,
    rehearsals=0,
    final_rehearsals=0,
    final_updates=0,
    dropout=0.0,
    weight_decay=0.0,
    least_gain=0.0,
    further_gain=0.0,
    checkpoint_every=10,
)

PRESETS: Mapping[str, TrainConfig] = {
    "mini": TrainConfig(),
    "ppd-arxiv": _ARXIV,
    "ppd-cvpr": replace(
        _ARXIV, preset="ppd-cvpr", features="dinov3:facebook/dinov3-vitb16-pretrain-lvd1689m"
    ),
}
"""``mini``: minutes on two CPU cores. ``ppd-arxiv``: the numbers of arXiv 2509.18891 (1000 FSS-1000 images,
1000 episodes, T in 50..300, Adam 1e-4, batch 128, target every 100 steps, epsilon 1.0 -> 0.1); what the paper
leaves open is our choice: gamma and replay size follow the authors' earlier code, the Q-network, k = 1, the
Huber loss and the stop rule are ours. ``ppd-cvpr``: the same with DINOv3."""


def preset(name: str, **changes: Any) -> TrainConfig:
    """Return a preset with some fields changed.

    Args:
        name: ``"mini"``, ``"ppd-arxiv"`` or ``"ppd-cvpr"``.
        **changes: Fields of ``TrainConfig``; lists become tuples.

    Returns:
        The configuration.

    Raises:
        ConfigError: The preset or a field is unknown.
    """
    if name not in PRESETS:
        raise ConfigError(f"Unknown preset {name!r}; known ones: {', '.join(PRESETS)}.")
    unknown = sorted(set(changes) - {f.name for f in fields(TrainConfig)})
    if unknown:
        raise ConfigError(f"Unknown training option(s): {', '.join(unknown)}.")
    tidy: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}
    return replace(PRESETS[name], **tidy)


ROLES: tuple[Role, ...] = get_args(Role)
"""Both roles, the attacker first."""
