"""TorchRL's DQN with masks: exploration, the greedy action and the target respect them.

python docs/examples/torchrl_dqn.py --steps 20000
"""

import argparse
import json

import gymnasium as gym
import torch
from gymnasium.wrappers import FilterObservation
from tensordict.nn import TensorDictModule, TensorDictSequential
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import CatTensors, Compose, DTypeCastTransform, GymWrapper, RewardSum, TransformedEnv
from torchrl.modules import MLP, EGreedyModule, QValueModule
from torchrl.objectives import DQNLoss, SoftUpdate

import ppd_env  # noqa: F401 (registers PPD-v0)

VECTOR = ["status", "steps_left", "feedback", "predicted_iou"]


def main() -> None:
    """Train, and print the mean return of the last episodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--make", type=json.loads, default={}, help="arguments of gym.make, as JSON")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    view = {"edges": "none", "feedback": True, "invalid_action": "raise"}
    plain = FilterObservation(gym.make("PPD-v0", **view, **args.make), [*VECTOR, "action_mask"])
    env = TransformedEnv(
        GymWrapper(plain, categorical_action_encoding=True),
        Compose(
            DTypeCastTransform(torch.int8, torch.float32, in_keys=["status"]),
            DTypeCastTransform(torch.int8, torch.bool, in_keys=["action_mask"]),
            CatTensors(VECTOR, "vector"),
            RewardSum(),
        ),
    )
    env.set_seed(args.seed)
    space = env.action_spec
    network = MLP(
        out_features=space.n, num_cells=[256, 256], in_features=env.observation_spec["vector"].shape[-1]
    )
    actor = TensorDictSequential(
        TensorDictModule(network, in_keys=["vector"], out_keys=["action_value"]),
        QValueModule(spec=space, action_mask_key="action_mask"),
    )
    explorer = EGreedyModule(space, 1.0, 0.05, args.steps // 2, action_mask_key="action_mask")
    loss = DQNLoss(actor, action_space=space, delay_value=True)
    loss.make_value_estimator(gamma=0.9)
    target = SoftUpdate(loss, eps=0.99)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-4)
    memory = TensorDictReplayBuffer(storage=LazyTensorStorage(20_000), batch_size=64)
    collector = Collector(
        env,
        TensorDictSequential(actor, explorer),
        frames_per_batch=min(50, args.steps),
        total_frames=args.steps,
    )
    returns: list[float] = []
    for frames in collector:
        explorer.step(frames.numel())
        memory.extend(frames.reshape(-1))
        returns += frames["next", "episode_reward"][frames["next", "done"]].tolist()
        for _ in range(frames.numel() // 4):
            optimizer.zero_grad()
            loss(memory.sample())["loss"].backward()
            optimizer.step()
            target.step()
    collector.shutdown()
    last = torch.tensor(returns[-100:])
    print(f"mean return {last.mean().item():+.3f} over the last {len(last)} episodes")


if __name__ == "__main__":
    main()
