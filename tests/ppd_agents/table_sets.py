"""What the tests of the paper's tables measure on: small folders of images, and untrained agents."""

import cv2
import numpy as np
import torch

from ppd_agents.dqn.agent import Agent, save_agent
from ppd_agents.dqn.q_network import GraphQNetwork, QNetworkConfig
from ppd_env.features.registry import load_features

GRID = 6
MODELS = ("--segmenter", "fake", "--features", "fake")


def write_set(folder, stems, size=(24, 32), void=False):
    """Bright rectangles on dark noise, some pixels of which count neither way."""
    for number, stem in enumerate(stems):
        rng = np.random.default_rng([len(stem), number])
        image, mask = rng.integers(0, 80, (*size, 3), dtype=np.uint8), np.zeros(size, np.uint8)
        top, left = rng.integers(1, 6), rng.integers(1, 10)
        mask[top : top + 12, left : left + 14] = 255
        image[mask > 0] += 150
        if void:
            mask[top : top + 4, left : left + 14] = 128
        for kind, values in (("images", image), ("masks", mask)):
            path = folder / kind / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), values)


def write_sets(root):
    """Two sets: one without classes, and one of two classes that have too few images for many references."""
    write_set(root / "lesions", [f"l{number}" for number in range(6)])
    write_set(root / "deep" / "pets", [f"{kind}/{n}" for kind in ("cat", "dog") for n in range(3)])
    return root


def agent(role, seed=0):
    network = GraphQNetwork(QNetworkConfig(role=role, hidden=8), torch.Generator().manual_seed(seed))
    return Agent(network.eval(), "fake", load_features("fake").signature, GRID, 10.0, notes={})


def write_agents(folder):
    for number, role in enumerate(("attacker", "defender")):
        save_agent(agent(role, number), folder / role)
    return folder
