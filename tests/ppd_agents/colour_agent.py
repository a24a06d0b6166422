"""A defender whose judgement is known, for tests of what is made of it."""

import numpy as np
import torch

from ppd_agents.dqn.agent import Agent
from ppd_agents.dqn.q_network import GraphQNetwork, QNetworkConfig
from ppd_env.features.registry import load_features


class Colour(GraphQNetwork):
    """Thinks that positive prompts belong on bright patches and negative ones on dark ones."""

    def forward(self, state):
        bright = state.features[state.rows].mean(-1) - 1.5
        values = torch.cat([-bright, bright, torch.zeros(len(state.rows), 1)], 1)
        active = torch.cat([state.status == 1, state.status == 2, torch.ones(len(values), 1) > 0], 1)
        return torch.where(active, values, 0.0)


def agent(kind=GraphQNetwork, role="defender", grid=8, **options):
    network = kind(QNetworkConfig(role=role, hidden=8, **options), torch.Generator().manual_seed(0))
    return Agent(network.eval(), "fake", load_features("fake").signature, grid, 1.0)


def half_bright():
    """An image, dark on the left, bright on the right; 64 pixels wide, 32 high: patches of 8 x 4."""
    made = np.zeros((32, 64, 3), np.uint8)
    made[:, 32:] = 255
    return made
