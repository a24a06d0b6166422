"""The graph Q-network: one value per candidate from the dual-space graph, for any number of nodes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
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
from ppd_agents.dqn.graph_state import GraphState, share_states
from ppd_agents.dqn.hearing import Tellers, View, judge, landmark_set
from ppd_agents.dqn.seen_masks import FEEDBACK_SIZE, INITIAL_MASK_SIZE, mean_over, see_feedback, see_share
from ppd_agents.dqn.suspicion import removal_worth
from ppd_agents.dqn.updates import UnitDropout
from ppd_env.errors import ConfigError
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE, Role, legal_actions


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
        landmarks: Nodes per side of an even lattice over the image (``landmark_set``) that tell what they see
            as the prompts do, active or not: how much of the image looks like a node, and whose it is. 0:
            none.
        dropout: Chance of a hidden unit to be left out in training.
        raw_features: Length d of the node features to add as they are; 0 leaves them out.
        use_positions: Add the node's (x, y).
        use_feedback: Add the segmenter's own answer: the share of predicted foreground in the node, its mean
            over the active prompts of each sign and over the image, and the predicted IoU.
        suspicion: c, above 0: the value of removing a prompt gets a second part, c times ``removal_worth``
            of p, the chance that the prompt came from the attack; p has weights of its own, which learn to
            tell such prompts from the others (``suspicions``): shared with the values of Dice, they learned
            neither as well. Only the defender has it.
        use_initial_mask: Add where the mask lay when the game began: whether it covered the node, and the
            shares it covered of the active prompts of each sign and of the image.
        members: Networks of this shape in one, on the same inputs; each learns for itself, and their mean
            judges (an ensemble, as in Lakshminarayanan et al., 2017): what they learned by heart differs.
        dueling: Split values into the worth of the state and the advantages of its candidates (Wang et al.,
            2016). A chosen action then costs as much as all of its state's.
    """

    role: Role = "attacker"
    bins: Bins = field(default_factory=Bins)
    hidden: int = 160
    layers: int = 2
    messages: int = 8
    landmarks: int = 0
    dropout: float = 0.2
    raw_features: int = 0
    use_positions: bool = False
    use_feedback: bool = False
    use_initial_mask: bool = False
    suspicion: float = 0.0
    members: int = 1
    dueling: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.role not in ("attacker", "defender"):
            raise ConfigError(f"role must be 'attacker' or 'defender', got {self.role!r}.")
        if min(self.hidden, self.layers, self.members) < 1:
            raise ConfigError("hidden, layers and members must be at least 1.")
        if min(self.raw_features, self.messages, self.landmarks) < 0:
            raise ConfigError("raw_features, messages and landmarks must be at least 0.")
        if self.landmarks and not self.messages:
            raise ConfigError(
                "Landmarks have nothing to tell without messages: set landmarks to 0 with them."
            )
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


class GraphQNetwork(nn.Module):
    """Value every candidate of a state by what lies around it in feature space and in the image.

    Two looks around. First every active prompt is described by the signs of the others, each at its feature
    and image distance (``descriptors.describe``), and says from that what it has to tell: a short vector,
    such as how likely it is to be wrong. Then every candidate is described by the signs around it and by what
    those prompts tell, again by distance, and a small MLP shared by all nodes turns that into its values. So
    relabelling the nodes relabels the values, and a network trained on one grid runs on any other. STOP is
    worth 0 by construction: the reward is a change of Dice, and stopping changes nothing.

    Dueling (Wang et al., 2016, eq. 9): Q(s, a) = V(s) + A(s, a) - the mean of A over the legal candidates of
    s. STOP stays outside of it, at 0, and does not count in the mean: V is what moving is worth on average
    beside stopping, learned from the mean description of the prompts of each sign, whatever their order.
    Legal is what the state alone allows; that an attacker may only give true signs is unknown here.

    Args:
        config: Shape and inputs.
        generator: Draws the first weights; torch's own where None.
    """

    def __init__(self, config: QNetworkConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        described = descriptor_size(config.bins)
        answer = FEEDBACK_SIZE * config.use_feedback + INITIAL_MASK_SIZE * config.use_initial_mask
        size = described + config.raw_features + 2 * config.use_positions + answer
        heard = 2 * config.bins.size * config.messages
        size += heard * (bool(config.messages) + bool(config.landmarks))
        told = described + answer
        self.telling, self.landmark_telling = self._tellers(told)
        self.trunk = self._mlps(size, 2)
        if config.suspicion:
            self.doubt_telling, self.doubt_landmark_telling = self._tellers(told)
            self.doubt = self._mlps(size, 2)
        if config.dueling:
            self.worth = self._mlps(2 * (described + answer) + 2, 1)
        self.reset(generator)

    def _tellers(self, size: int) -> tuple[nn.ModuleList, nn.ModuleList]:
        """Build each member's MLPs that say what prompts tell and what landmarks tell; empty for none."""
        config = self.config
        return (
            self._mlps(size, config.messages) if config.messages else nn.ModuleList(),
            self._mlps(size, config.messages) if config.landmarks else nn.ModuleList(),
        )

    def _mlps(self, size: int, out: int) -> nn.ModuleList:
        """Build an MLP for each member."""
        return nn.ModuleList(self._mlp(size, out) for _ in range(self.config.members))

    def _mlp(self, size: int, out: int) -> nn.Sequential:
        # ``reset`` fills them: torch's own first weights would cost a draw of the caller's generator.
        linear = partial(nn.utils.skip_init, nn.Linear)
        hidden, layers = self.config.hidden, []
        for width in [size] + [hidden] * (self.config.layers - 1):
            layers += [linear(width, hidden), nn.LayerNorm(hidden), nn.GELU()]
            layers += [UnitDropout(self.config.dropout)]
        return nn.Sequential(*layers, linear(hidden, out))

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights from ``generator`` (torch's own where None); values start close to 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = 1 / math.sqrt(module.in_features)
                for parameter in (module.weight, module.bias):
                    nn.init.uniform_(parameter, -bound, bound, generator=generator)
        heads = [*self.trunk, *(self.worth if self.config.dueling else ())]
        heads += self.doubt if self.config.suspicion else ()
        for head in heads:
            assert isinstance(head, nn.Sequential)
            last = head[-1]
            assert isinstance(last, nn.Linear)
            with torch.no_grad():
                last.weight.mul_(0.1)
                last.bias.zero_()

    def suspecting(self, suspicion: float) -> GraphQNetwork:
        """Return a network that shares the weights of this one, in which suspicion counts for another c."""
        other = copy.copy(self)
        other.config = replace(self.config, suspicion=suspicion)
        return other

    def forward(self, state: GraphState, *, dice_only: bool = False) -> Tensor:
        """Value all candidates and STOP; the mean of ``each`` member's values, (B, 2N + 1) float32."""
        return self.each(state, dice_only=dice_only).mean(0)

    def each(self, state: GraphState, *, dice_only: bool = False) -> Tensor:
        """Value all candidates and STOP by every member.

        Args:
            state: B states.
            dice_only: Leave the suspicion out of the values.

        Returns:
            (E, B, 2N + 1) float32, for each of E members: (positive, node) for each node, (negative, node)
            for each node, STOP = 0. The defender's candidates that are not active hold 0 too: they are never
            legal.
        """
        status = state.status
        count = status.shape[1]
        active = active_set(status)
        everything = torch.arange(count, device=status.device).expand_as(status)
        defending = self.config.role == "defender"
        nodes = active.nodes if defending else everything
        values: list[Tensor] = []
        for part in self._parts(nodes, active):
            here = active.at(part)
            # The very same tensor tells that the surroundings of the prompts are those of the candidates.
            view = self._look(state.at(part), here.nodes if defending else nodes[part], here)
            values.append(self._values(view))
        out = self._lay_out(values, active, count)
        if self.config.dueling:
            out = self._duel(state, out, active)
        return out + self._bonus(state) if self.config.suspicion and not dice_only else out

    def _parts(self, nodes: Tensor, active: ActiveSet) -> Iterator[slice]:
        """Cut B states whose ``nodes`` (B, M) are looked around into parts that suit the device."""
        prompts, landmarks = active.nodes.shape[1], self.config.landmarks**2
        pairs = nodes.shape[1] * (prompts + landmarks) + landmarks * prompts
        return chunks(len(nodes), pairs, nodes.device)

    def _lay_out(self, parts: list[Tensor], active: ActiveSet, count: int) -> Tensor:
        """Put values (E, B, M, 2), given in parts of the batch, in the places of their actions."""
        shape = (self.config.members, len(active.nodes), 2 * count + 1)
        out = torch.zeros(shape, device=active.nodes.device)
        values = torch.cat(parts, dim=1)
        if self.config.role == "attacker":
            out[..., : 2 * count] = values.transpose(2, 3).flatten(2)
            return out
        chosen = torch.where(active.positive, values[..., 0], values[..., 1])
        columns = active.nodes + count * (~active.positive)
        # Padded slots repeat node 0: they must not overwrite its value.
        return out.scatter_add(2, columns.expand_as(chosen), chosen * active.present)

    def _duel(self, state: GraphState, advantages: Tensor, active: ActiveSet) -> Tensor:
        """Turn the advantages of all candidates (E, B, 2N + 1) into values; STOP stays 0."""
        status, attacking = state.status, self.config.role == "attacker"
        legal = legal_actions(status, torch.full((len(status),), attacking, device=status.device))[:, :-1]
        mean = (advantages[..., :-1] * legal).sum(2, keepdim=True) / legal.sum(1, keepdim=True).clamp_min(1)
        worth = torch.cat(
            [
                self._worth(state.at(part), active.at(part))
                for part in chunks(len(status), active.nodes.shape[1] ** 2, status.device)
            ],
            dim=1,
        )
        active_ones = torch.cat([status == POSITIVE, status == NEGATIVE], dim=1)
        valued = torch.ones_like(legal) if attacking else active_ones
        values = torch.where(valued, worth + advantages[..., :-1] - mean, 0.0)
        return torch.cat([values, advantages[..., -1:]], dim=2)

    def _worth(self, state: GraphState, active: ActiveSet) -> Tensor:
        """Return what moving is worth in each state, (E, B, 1), from the prompts of each sign together."""
        around = survey(state.features, state.positions, state.rows, active.nodes, active, self.config.bins)
        seen = [describe(around, state.status, active.nodes, active)]
        seen += self._answers(state, active.nodes, active)
        signs = (active.positive, active.present & ~active.positive)
        described = torch.cat(seen, dim=-1)
        pooled = [mean_over(described, sign) for sign in signs]
        counts = torch.stack([sign.sum(1) for sign in signs], dim=1).to(described.dtype).log1p()
        known = torch.cat([*pooled, counts], dim=-1)[:, None]
        return torch.stack([worth(known)[:, 0] for worth in self.worth])

    def values_at(self, state: GraphState, nodes: Tensor) -> Tensor:
        """Value both signs of chosen nodes; a dueling network gives their advantages.

        Args:
            state: B states.
            nodes: (B, M) int64.

        Returns:
            (B, M, 2) float32, of the positive and of the negative candidate.
        """
        return self._values(self._look(state, nodes, active_set(state.status))).mean(0)

    def suspicions(self, state: GraphState) -> tuple[Tensor, ActiveSet]:
        """Judge every active prompt.

        Args:
            state: B states.

        Returns:
            logits: (E, B, n) float32, each member's, of the chance that a prompt came from the attack; of
                those that were removed too, where ``seen`` knows them.
            active: The prompts they belong to.

        Raises:
            ConfigError: The network was built without suspicion.
        """
        if not self.config.suspicion:
            raise ConfigError("This Q-network was built without suspicion.")
        state = state.evidence
        active = active_set(state.status)
        judged = []
        for part in self._parts(active.nodes, active):
            here = active.at(part)
            judged.append(self._doubts(self._look(state.at(part), here.nodes, here)))
        logits = torch.cat(judged, dim=1)
        return torch.where(active.positive, logits[..., 0], logits[..., 1]), active

    def _bonus(self, state: GraphState) -> Tensor:
        """Return what suspicion adds to the values (E, B, 2N + 1)."""
        logits, known = self.suspicions(state)
        count = state.status.shape[1]
        there = known.present & (state.status.gather(1, known.nodes) != INACTIVE)
        bonus = self.config.suspicion * removal_worth(logits, known.positive, there)
        out = bonus.new_zeros((len(bonus), len(known.nodes), 2 * count + 1))
        columns = known.nodes + count * (~known.positive)
        return out.scatter_add(2, columns.expand_as(bonus), bonus * there)

    def q_of(
        self, state: GraphState, actions: Tensor, *, dice_only: bool = False, each: bool = False
    ) -> Tensor:
        """Value chosen actions only, at the cost of their nodes (of all candidates in a dueling network).

        Args:
            state: B states.
            actions: (B,) or (B, K) int64 in [0, 2N]; the defender's must be active candidates.
            dice_only: Leave the suspicion out of the values.
            each: Return every member's values instead of their mean.

        Returns:
            float32 of the same shape as ``actions``, with an axis of E members before it where asked for.
        """
        count = state.status.shape[1]
        wide = actions if actions.dim() == 2 else actions[:, None]
        first, slot, grouped = share_states(state, wide)
        shared = state.at(first)
        if self.config.dueling or (self.config.suspicion and not dice_only):
            picked = self.each(shared, dice_only=dice_only)
            picked = picked.gather(2, grouped.expand(len(picked), *grouped.shape))
        else:
            values = self._values(self._look(shared, grouped % count, active_set(shared.status)))
            signs = (grouped // count).clamp(max=1)[..., None]
            picked = values.gather(3, signs.expand(len(values), *signs.shape))[..., 0]
        picked = torch.where(wide == 2 * count, 0.0, picked.flatten(1)[:, slot])
        return picked.view(-1, *actions.shape) if each else picked.mean(0).view(actions.shape)

    def _look(self, state: GraphState, nodes: Tensor, active: ActiveSet) -> View:
        """Look around chosen nodes (B, M) and around the prompts, without any weights."""
        where = (state.features, state.positions, state.rows)
        around = survey(*where, nodes, active, self.config.bins)
        described, rest = describe(around, state.status, nodes, active), self._rest(state, nodes, active)
        prompts = landmarks = None
        if self.config.messages:
            own = around if nodes is active.nodes else survey(*where, active.nodes, active, self.config.bins)
            prompts = Tellers(around, self._told_by(state, active.nodes, active, own), active)
        if self.config.landmarks:
            spread = landmark_set(state.positions, self.config.landmarks, len(state.rows))
            near = survey(*where, spread.nodes, active, self.config.bins)
            beside = survey(*where, nodes, spread, self.config.bins)
            landmarks = Tellers(beside, self._told_by(state, spread.nodes, active, near), spread)
        return View(active, described, rest, prompts, landmarks)

    def _told_by(self, state: GraphState, nodes: Tensor, active: ActiveSet, around: Surroundings) -> Tensor:
        """Return what nodes see before they tell, (B, M, ...)."""
        seen = describe(around, state.status, nodes, active)
        return torch.cat([seen, *self._answers(state, nodes, active)], dim=-1)

    def _values(self, view: View) -> Tensor:
        """Return each member's (positive, negative) values of Dice, (E, B, M, 2)."""
        return judge(view, self.telling, self.landmark_telling, self.trunk)

    def _doubts(self, view: View) -> Tensor:
        """Return each member's (positive, negative) suspicion logits, (E, B, M, 2)."""
        return judge(view, self.doubt_telling, self.doubt_landmark_telling, self.doubt)

    def _rest(self, state: GraphState, nodes: Tensor, active: ActiveSet) -> list[Tensor]:
        """Return what chosen nodes know but for the prompts around them, (B, M, ...) each."""
        parts = []
        if self.config.raw_features:
            parts.append(state.features[state.rows[:, None], nodes])
        if self.config.use_positions:
            parts.append(state.positions[nodes])
        return parts + self._answers(state, nodes, active)

    def _answers(self, state: GraphState, nodes: Tensor, active: ActiveSet) -> list[Tensor]:
        """Return what chosen nodes see of the segmenter's masks, (B, M, ...) each."""
        parts = []
        if self.config.use_feedback:
            parts.append(see_feedback(state, nodes, active))
        if self.config.use_initial_mask:
            if state.initial_mask is None:
                raise ConfigError("This Q-network was built with the initial mask: give it initial_mask.")
            parts.append(see_share(state.initial_mask.to(torch.float32), nodes, active))
        return parts
