"""DQN with action masks in one file, in the style of CleanRL, on the vector environment.

python docs/examples/single_file_dqn.py --steps 20000

The mask acts in three places: exploration draws legal actions, the greedy action is the best legal one, and
so is the action whose value the target takes over.
"""

import json
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

import ppd_env  # noqa: F401 (registers PPD-v0)


@dataclass
class Args:
    """The settings; tyro makes command line options of them."""

    steps: int = 20_000
    """environment steps"""
    seed: int = 0
    """seed of everything"""
    make: str = "{}"
    """arguments of gym.make, as JSON"""
    num_envs: int = 8
    """games that are decoded together"""
    learning_rate: float = 3e-4
    """of Adam"""
    gamma: float = 0.9
    """discount"""
    buffer_size: int = 50_000
    """transitions kept"""
    learning_starts: int = 200
    """steps before the first update"""
    batch_size: int = 64
    """transitions per update"""
    target_every: int = 500
    """steps between copies to the target network"""
    exploration_fraction: float = 0.5
    """share of the training over which epsilon falls"""
    end_epsilon: float = 0.05
    """the last epsilon"""


class Buffer:
    """A ring of transitions; a state is a vector and its mask."""

    def __init__(self, size: int, width: int, actions: int) -> None:
        self.state, self.next_state = np.zeros((2, size, width), np.float32)
        self.next_mask = np.zeros((size, actions), bool)
        self.action, self.reward = np.zeros(size, np.int64), np.zeros(size, np.float32)
        self.terminated = np.zeros(size, np.float32)
        self.size, self.count = size, 0

    def add(self, *transition: np.ndarray) -> None:
        """Add a batch of transitions."""
        where = (self.count + np.arange(len(transition[0]))) % self.size
        for ring, values in zip(self._rings(), transition, strict=True):
            ring[where] = values
        self.count += len(where)

    def sample(self, batch: int, rng: np.random.Generator) -> list[Tensor]:
        """Draw a batch."""
        where = rng.integers(min(self.count, self.size), size=batch)
        return [torch.from_numpy(ring[where]) for ring in self._rings()]

    def _rings(self) -> tuple[np.ndarray, ...]:
        return self.state, self.action, self.reward, self.next_state, self.next_mask, self.terminated


def encode(observation: dict[str, np.ndarray]) -> np.ndarray:
    """Make vectors of observations: the status of each patch as one of three, and what the segmenter says."""
    status = np.eye(3, dtype=np.float32)[observation["status"]]
    parts = [status.reshape(*status.shape[:-2], -1), observation["feedback"], observation["predicted_iou"]]
    return np.concatenate([*parts, observation["steps_left"]], axis=-1)


def best(values: Tensor, mask: Tensor) -> Tensor:
    """Return the best legal action of each row."""
    return values.masked_fill(~mask, torch.finfo(values.dtype).min).argmax(dim=1)


def main() -> None:
    """Train, and print the mean return of the last episodes."""
    args = tyro.cli(Args, description=__doc__)
    rng = np.random.default_rng(args.seed)
    torch.manual_seed(args.seed)
    view = {"edges": "none", "feedback": True, "invalid_action": "raise"}
    envs = gym.make_vec("PPD-v0", args.num_envs, "vector_entry_point", **view, **json.loads(args.make))
    observation, _ = envs.reset(seed=args.seed)
    state, mask = encode(observation), observation["action_mask"].astype(bool)
    width, actions = state.shape[1], mask.shape[1]

    def network() -> nn.Module:
        return nn.Sequential(
            nn.Linear(width, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, actions)
        )

    q, target = network(), network()
    target.load_state_dict(q.state_dict())
    optimizer = torch.optim.Adam(q.parameters(), lr=args.learning_rate)
    buffer = Buffer(args.buffer_size, width, actions)
    running, returns = np.zeros(args.num_envs), []

    for step in range(0, args.steps, args.num_envs):
        epsilon = max(args.end_epsilon, 1 - step / (args.exploration_fraction * args.steps))
        with torch.no_grad():
            action = best(q(torch.from_numpy(state)), torch.from_numpy(mask)).numpy()
        for game in np.flatnonzero(rng.random(args.num_envs) < epsilon):
            action[game] = rng.choice(np.flatnonzero(mask[game]))
        observation, reward, terminated, truncated, info = envs.step(action)
        next_state, next_mask = encode(observation), observation["action_mask"].astype(bool)
        seen_state, seen_mask = next_state.copy(), next_mask.copy()
        running += reward
        for game in np.flatnonzero(
            terminated | truncated
        ):  # a new game has begun: its last state lies in info
            seen_state[game] = encode(info["final_obs"][game])
            seen_mask[game] = info["final_obs"][game]["action_mask"]
            returns.append(running[game])
            running[game] = 0
        buffer.add(state, action, reward, seen_state, seen_mask, terminated)
        state, mask = next_state, next_mask

        if step >= args.learning_starts:
            s, a, r, s2, m2, over = buffer.sample(args.batch_size, rng)
            with torch.no_grad():
                values = target(s2)
                goal = r + args.gamma * (1 - over) * values.gather(1, best(values, m2)[:, None])[:, 0]
            loss = F.smooth_l1_loss(q(s).gather(1, a[:, None])[:, 0], goal)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if step % args.target_every < args.num_envs:
            target.load_state_dict(q.state_dict())

    envs.close()
    print(f"mean return {np.mean(returns[-100:]):+.3f} over the last {len(returns[-100:])} episodes")


if __name__ == "__main__":
    main()
