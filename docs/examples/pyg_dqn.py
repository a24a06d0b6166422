"""A graph network of PyTorch Geometric on GraphObservation, trained by one-step Q-learning with masks.

python docs/examples/pyg_dqn.py --steps 20000

The dual-space graph goes into GATv2 with both distances as edge attributes; every node gets two values, one
for each sign, and STOP is worth 0, since the reward is a change of Dice.
"""

import argparse
import json
from collections import deque

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GATv2Conv

import ppd_env  # noqa: F401 (registers PPD-v0)
from ppd_env.wrappers import GraphObservation


class GraphQ(nn.Module):
    """Values of a positive and a negative prompt at every node."""

    def __init__(self, width: int, hidden: int = 32) -> None:
        super().__init__()
        self.first = GATv2Conv(width, hidden, edge_dim=2)
        self.second = GATv2Conv(hidden, hidden, edge_dim=2)
        self.out = nn.Linear(hidden, 2)

    def forward(self, data: Data) -> Tensor:
        """Return (nodes of all graphs, 2)."""
        x = F.elu(self.first(data.x, data.edge_index, data.edge_attr))
        return self.out(F.elu(self.second(x, data.edge_index, data.edge_attr)))


def as_data(graph: gym.spaces.GraphInstance) -> Data:
    """Turn Gymnasium's graph into PyTorch Geometric's."""
    return Data(
        x=torch.from_numpy(graph.nodes),
        edge_index=torch.from_numpy(graph.edge_links.T.astype(np.int64)),
        edge_attr=torch.from_numpy(graph.edges),
    )


def action_values(values: Tensor) -> Tensor:
    """Bring the values of one graph (N, 2) into the order of actions (2N + 1,): positive, negative, STOP."""
    return torch.cat([values.T.flatten(), values.new_zeros(1)])


def main() -> None:
    """Train, and print the mean return of the last episodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--make", type=json.loads, default={}, help="arguments of gym.make, as JSON")
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    torch.manual_seed(args.seed)
    env = GraphObservation(gym.make("PPD-v0", invalid_action="raise", **args.make))
    graph, info = env.reset(seed=args.seed)
    network = GraphQ(graph.nodes.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    memory: deque[tuple[Data, int, float]] = deque(maxlen=2_000)
    total, returns = 0.0, []
    for step in range(args.steps):
        state, mask = as_data(graph), torch.from_numpy(info["action_mask"]).bool()
        if rng.random() < max(0.1, 1 - 2 * step / args.steps):
            action = int(rng.choice(mask.nonzero().flatten().numpy()))
        else:
            with torch.no_grad():
                action = int(action_values(network(state)).masked_fill(~mask, -torch.inf).argmax())
        graph, reward, terminated, truncated, info = env.step(action)
        total += reward
        if action < 2 * len(state.x):  # the value of STOP is known
            memory.append((state, action, reward))
        if terminated or truncated:
            returns.append(total)
            total, (graph, info) = 0.0, env.reset()
        if len(memory) >= args.batch and step % 4 == 0:
            drawn = [memory[i] for i in rng.integers(len(memory), size=args.batch)]
            values = network(Batch.from_data_list([data for data, _, _ in drawn])).split(
                [len(d.x) for d, _, _ in drawn]
            )
            played = torch.stack([action_values(v)[a] for v, (_, a, _) in zip(values, drawn, strict=True)])
            loss = F.smooth_l1_loss(played, torch.tensor([r for _, _, r in drawn], dtype=torch.float32))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    env.close()
    print(f"mean return {np.mean(returns[-100:]):+.3f} over the last {len(returns[-100:])} episodes")


if __name__ == "__main__":
    main()
