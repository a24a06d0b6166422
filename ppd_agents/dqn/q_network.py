"""The graph Q-network: one value per candidate from the dual-space graph, for any number of nodes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from ppd_agents.dqn.descriptors import (
    ActiveSet,
    Bins,
    Surroundings,
    active_set,
    chunks,
    describe,
    descriptor_size,
    survey,
)
from ppd_env.errors import ConfigError
from ppd_env.game.actions import Role

_FEEDBACK = 5
"""Numbers of the segmenter's answer that a node sees."""

_INITIAL_MASK = 4
"""Numbers of the initial mask that a node sees."""

_RARE = 3.0
"""Brings a message's share of all prompts, which is small in most cells, to the size of the other inputs."""


@dataclass(frozen=True)
class QNetworkConfig:
    """Shape and inputs of a ``GraphQNetwork``.

    Args:
        role: The attacker values activating inactive nodes, the defender removing active ones.
        bins: Centres of the distance histograms.
        hidden: Width of the hidden layers.
        layers: Number of hidden layers.
        messages: Numbers each active prompt tells its neighbours after looking around itself; 0 leaves this
            second look out (it costs O(n^2) per state for n active prompts).
        dropout: Chance of a hidden unit to be left out in training.
        raw_features: Length d of the node features to add as they are; 0 leaves them out.
        use_positions: Add the node's (x, y).
        use_feedback: Add the segmenter's own answer: the share of predicted foreground in the node, its mean
            over the active prompts of each sign and over the image, and the predicted IoU.
        suspicion: c, above 0: the value of removing a prompt gets a second part, c (2 p - 1), where p is the
            chance that the prompt came from the attack; p has an output of its own, learned by telling
            such prompts from the others (``suspicions``). Only the defender has it.
        use_initial_mask: Add where the mask lay when the game began: whether it covered the node, and the
            shares it covered of the active prompts of each sign and of the image.
    """

    role: Role = "attacker"
    bins: Bins = field(default_factory=Bins)
    hidden: int = 160
    layers: int = 2
    messages: int = 8
    dropout: float = 0.2
    raw_features: int = 0
    use_positions: bool = False
    use_feedback: bool = False
    use_initial_mask: bool = False
    suspicion: float = 0.0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.role not in ("attacker", "defender"):
            raise ConfigError(f"role must be 'attacker' or 'defender', got {self.role!r}.")
        if self.hidden < 1 or self.layers < 1 or self.raw_features < 0 or self.messages < 0:
            raise ConfigError("hidden and layers must be at least 1, raw_features and messages at least 0.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must lie in [0, 1), got {self.dropout}.")
        if self.suspicion < 0 or (self.suspicion and self.role == "attacker"):
            raise ConfigError("suspicion must not be negative, and only a defender has it.")

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and strings."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> QNetworkConfig:
        """Build a configuration from ``to_json``'s answer.

        Raises:
            ConfigError: A key is unknown.
        """
        values = dict(values)
        for kind, given in ((QNetworkConfig, values), (Bins, values.get("bins", {}))):
            unknown = set(given) - {f.name for f in fields(kind)}
            if unknown:
                raise ConfigError(f"Unknown keys in a Q-network configuration: {', '.join(sorted(unknown))}.")
        values["bins"] = Bins(**values.get("bins", {}))
        return QNetworkConfig(**values)


@dataclass(frozen=True)
class GraphState:
    """B states of the game as the Q-network takes them.

    Args:
        features: (S, N, d) float32 patch features of S scenes.
        positions: (N, 2) float32 in [0, 1].
        rows: (B,) int64, the scene of each state.
        status: (B, N) int8.
        feedback: (B, N) float32 share of predicted foreground per node, or None.
        predicted_iou: (B,) float32, taken as it is within [0, 1], or None.
        initial_mask: (B, N) bool, nodes the mask covered when the game began, or None.
    """

    features: Tensor
    positions: Tensor
    rows: Tensor
    status: Tensor
    feedback: Tensor | None = None
    predicted_iou: Tensor | None = None
    initial_mask: Tensor | None = None

    def at(self, chosen: slice | Tensor) -> GraphState:
        """Return some of the states."""
        return GraphState(
            self.features,
            self.positions,
            self.rows[chosen],
            self.status[chosen],
            None if self.feedback is None else self.feedback[chosen],
            None if self.predicted_iou is None else self.predicted_iou[chosen],
            None if self.initial_mask is None else self.initial_mask[chosen],
        )


class UnitDropout(nn.Module):
    """Leave out hidden units in training, the same ones for all nodes of a state.

    torch's own draws a number for every node and unit, which took as long as the rest of the network.

    Args:
        chance: Of a unit to be left out.
    """

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def forward(self, hidden: Tensor) -> Tensor:
        """Take and return (B, M, H)."""
        if not self.training or not self.chance:
            return hidden
        kept = hidden.new_empty(len(hidden), 1, hidden.shape[-1]).bernoulli_(1 - self.chance)
        return hidden * (kept / (1 - self.chance))


class GraphQNetwork(nn.Module):
    """Value every candidate of a state by what lies around it in feature space and in the image.

    Two looks around. First every active prompt is described by the signs of the others, each at its feature
    and image distance (``descriptors.describe``), and says from that what it has to tell: a short vector,
    such as how likely it is to be wrong. Then every candidate is described by the signs around it and by what
    those prompts tell, again by distance, and a small MLP shared by all nodes turns that into its values. So
    relabelling the nodes relabels the values, and a network trained on one grid runs on any other. STOP is
    worth 0 by construction: the reward is a change of Dice, and stopping changes nothing.

    Args:
        config: Shape and inputs.
        generator: Draws the first weights; torch's own where None.
    """

    def __init__(self, config: QNetworkConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        described = descriptor_size(config.bins)
        answer = _FEEDBACK * config.use_feedback + _INITIAL_MASK * config.use_initial_mask
        size = described + config.raw_features + 2 * config.use_positions + answer
        if config.messages:
            self.telling = self._mlp(described + answer, config.messages)
            size += 2 * config.bins.size * config.messages
        self.trunk = self._mlp(size, 4 if config.suspicion else 2)
        self.reset(generator)

    def _mlp(self, size: int, out: int) -> nn.Sequential:
        hidden, layers = self.config.hidden, []
        for width in [size] + [hidden] * (self.config.layers - 1):
            layers += [nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU()]
            layers += [UnitDropout(self.config.dropout)]
        return nn.Sequential(*layers, nn.Linear(hidden, out))

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights from ``generator`` (torch's own where None); values start close to 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = 1 / math.sqrt(module.in_features)
                for parameter in (module.weight, module.bias):
                    nn.init.uniform_(parameter, -bound, bound, generator=generator)
        last = self.trunk[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()

    def forward(self, state: GraphState, *, dice_only: bool = False) -> Tensor:
        """Value all candidates and STOP.

        Args:
            state: B states.
            dice_only: Leave the suspicion out of the values.

        Returns:
            (B, 2N + 1) float32: (positive, node) for each node, (negative, node) for each node, STOP = 0. The
            defender's candidates that are not active hold 0 too: they are never legal.
        """
        status = state.status
        count = status.shape[1]
        active = active_set(status)
        everything = torch.arange(count, device=status.device).expand_as(status)
        defending = self.config.role == "defender"
        nodes = active.nodes if defending else everything
        parts: list[Tensor] = []
        for part in chunks(len(status), nodes.shape[1] * active.nodes.shape[1]):
            here = ActiveSet(active.nodes[part], active.present[part], active.positive[part])
            # The very same tensor tells that the surroundings of the prompts are those of the candidates.
            values, logits = self._heads(state.at(part), here.nodes if defending else nodes[part], here)
            parts.append(values if dice_only else self._whole(values, logits))
        values = torch.cat(parts) if parts else status.new_zeros((0, nodes.shape[1], 2), dtype=torch.float32)
        out = values.new_zeros((len(status), 2 * count + 1))
        if self.config.role == "attacker":
            out[:, : 2 * count] = values.transpose(1, 2).flatten(1)
            return out
        chosen = torch.where(active.positive, values[..., 0], values[..., 1])
        columns = nodes + count * (~active.positive)
        # Padded slots repeat node 0: they must not overwrite its value.
        return out.scatter_add(1, columns, chosen * active.present)

    def values_at(self, state: GraphState, nodes: Tensor) -> Tensor:
        """Value both signs of chosen nodes.

        Args:
            state: B states.
            nodes: (B, M) int64.

        Returns:
            (B, M, 2) float32, of the positive and of the negative candidate; for the attacker.
        """
        return self._whole(*self._heads(state, nodes, active_set(state.status)))

    def suspicions(self, state: GraphState) -> tuple[Tensor, ActiveSet]:
        """Judge every active prompt.

        Args:
            state: B states.

        Returns:
            logits: (B, n) float32, of the chance that a prompt came from the attack.
            active: The prompts they belong to.

        Raises:
            ConfigError: The network was built without suspicion.
        """
        active = active_set(state.status)
        _, logits = self._heads(state, active.nodes, active)
        if logits is None:
            raise ConfigError("This Q-network was built without suspicion.")
        return torch.where(active.positive, logits[..., 0], logits[..., 1]), active

    def _whole(self, values: Tensor, logits: Tensor | None) -> Tensor:
        """Put both parts of the values together, (B, M, 2) each; 2 sigmoid(x) - 1 = tanh(x / 2)."""
        return values if logits is None else values + self.config.suspicion * torch.tanh(logits / 2)

    def q_of(self, state: GraphState, actions: Tensor, *, dice_only: bool = False) -> Tensor:
        """Value chosen actions only, at the cost of their nodes.

        Args:
            state: B states.
            actions: (B,) or (B, K) int64 in [0, 2N]; the defender's must be active candidates.
            dice_only: Leave the suspicion out of the values.

        Returns:
            float32 of the same shape as ``actions``.
        """
        count = state.status.shape[1]
        wide = actions if actions.dim() == 2 else actions[:, None]
        first, slot, grouped = _share_states(state, wide)
        shared = state.at(first)
        values, logits = self._heads(shared, grouped % count, active_set(shared.status))
        values = values if dice_only else self._whole(values, logits)
        picked = values.gather(2, (grouped // count).clamp(max=1)[..., None])[..., 0]
        picked = picked.flatten()[slot]
        return torch.where(wide == 2 * count, 0.0, picked).reshape(actions.shape)

    def _heads(self, state: GraphState, nodes: Tensor, active: ActiveSet) -> tuple[Tensor, Tensor | None]:
        """Return the (positive, negative) values and suspicion logits of chosen nodes, (B, M, 2) each."""
        where = (state.features, state.positions, state.rows)
        around = survey(*where, nodes, active, self.config.bins)
        parts = [describe(around, state.status, nodes, active)]
        if self.config.messages:
            own = around if nodes is active.nodes else survey(*where, active.nodes, active, self.config.bins)
            seen = describe(own, state.status, active.nodes, active)
            told = self.telling(torch.cat([seen, *self._answers(state, active.nodes, active)], dim=-1))
            parts += _hear(around, told, active)
        if self.config.raw_features:
            parts.append(state.features[state.rows[:, None], nodes])
        if self.config.use_positions:
            parts.append(state.positions[nodes])
        parts += self._answers(state, nodes, active)
        out: Tensor = self.trunk(torch.cat(parts, dim=-1))
        return out[..., :2], out[..., 2:] if self.config.suspicion else None

    def _answers(self, state: GraphState, nodes: Tensor, active: ActiveSet) -> list[Tensor]:
        """Return what chosen nodes see of the segmenter's masks, (B, M, ...) each."""
        parts = []
        if self.config.use_feedback:
            parts.append(_feedback(state, nodes, active))
        if self.config.use_initial_mask:
            if state.initial_mask is None:
                raise ConfigError("This Q-network was built with the initial mask: give it initial_mask.")
            parts.append(_look(state.initial_mask.to(torch.float32), nodes, active))
        return parts


def _hear(around: Surroundings, told: Tensor, active: ActiveSet) -> list[Tensor]:
    """Return what prompts tell (B, n, r), by cell: its mean there and its share of all, (B, M, C r) each."""
    total = around.collect(told)
    present = around.cells.sum(-1, keepdim=True)
    everyone = active.present.sum(1)[:, None, None, None]
    return [(total / (1 + present)).flatten(2), (_RARE * total / (1 + everyone)).flatten(2)]


def _share_states(state: GraphState, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find runs of the same state, whose surroundings are then looked at once.

    Args:
        state: B states.
        actions: (B, K) int64.

    Returns:
        first: (G,) int64, the first row of each run.
        slot: (B, K) int64, the place of each action in the flattened ``grouped``.
        grouped: (G, L) int64, the actions of each run, padded with 0.
    """
    new = torch.ones(len(actions), dtype=torch.bool, device=actions.device)
    if len(actions) > 1:
        same = (state.status[1:] == state.status[:-1]).all(1) & (state.rows[1:] == state.rows[:-1])
        if state.feedback is not None and state.predicted_iou is not None:
            same &= (state.feedback[1:] == state.feedback[:-1]).all(1)
            same &= state.predicted_iou[1:] == state.predicted_iou[:-1]
        new[1:] = ~same
    group = new.cumsum(0) - 1
    first = new.nonzero()[:, 0]
    width, each = actions.shape[1], torch.arange(actions.shape[1], device=actions.device)
    place = (torch.arange(len(actions), device=actions.device) - first[group])[:, None] * width + each
    length = int(place.max()) + 1
    slot = group[:, None] * length + place
    grouped = actions.new_zeros(len(first) * length)
    grouped[slot] = actions
    return first, slot, grouped.view(len(first), length)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Average (B, n, D) over the ``chosen`` (B, n) slots; zeros where there is none."""
    weight = chosen[..., None].to(values.dtype)
    return (values * weight).sum(1) / weight.sum(1).clamp_min(1)


def _look(share: Tensor, nodes: Tensor, active: ActiveSet) -> Tensor:
    """Return a share per node (B, N) at chosen nodes, its mean over the prompts of each sign and over all."""
    at_active = share.gather(1, active.nodes)[..., None]
    signs = (active.positive, active.present & ~active.positive)
    whole = torch.cat([*(_mean(at_active, sign) for sign in signs), share.mean(1, keepdim=True)], dim=-1)
    return torch.cat([share.gather(1, nodes)[..., None], whole[:, None].expand(-1, nodes.shape[1], -1)], -1)


def _feedback(state: GraphState, nodes: Tensor, active: ActiveSet) -> Tensor:
    """Return the segmenter's answer at chosen nodes, over the prompts and over the image, (B, M, 5)."""
    if state.feedback is None or state.predicted_iou is None:
        raise ConfigError("This Q-network was built with feedback: give it feedback and predicted_iou.")
    iou = state.predicted_iou.clamp(0, 1)  # an IoU head may overshoot
    return torch.cat(
        [_look(state.feedback, nodes, active), iou[:, None, None].expand(-1, nodes.shape[1], 1)], dim=-1
    )
