"""The rules: pure functions on batches of statuses; they know no Gym, no segmenter and no images."""

from ppd_env.game.actions import (
    INACTIVE,
    NEGATIVE,
    POSITIVE,
    Role,
    action_count,
    encode,
    legal_actions,
    node_of,
    only_stop,
    sign_of,
    stop_action,
)
from ppd_env.game.rules import Move, apply_actions, rewards

__all__ = [
    "INACTIVE",
    "NEGATIVE",
    "POSITIVE",
    "Move",
    "Role",
    "action_count",
    "apply_actions",
    "encode",
    "legal_actions",
    "node_of",
    "only_stop",
    "rewards",
    "sign_of",
    "stop_action",
]
