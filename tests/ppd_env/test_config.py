"""The make arguments."""

import pytest

from ppd_env.config import EnvConfig, TwoAgentConfig
from ppd_env.errors import ConfigError


def test_defaults_depend_on_the_role():
    assert EnvConfig().start_state == "ideal+attack"
    assert EnvConfig(role="attacker").start_state == "ideal"
    assert EnvConfig(role="attacker", attack_steps=7).steps == 7
    assert EnvConfig(defence_steps=[5, 9]).steps == (5, 9)
    assert TwoAgentConfig().start_state == "ideal"
    assert EnvConfig(features="segmenter", segmenter="fake").features_uri == "segmenter:fake"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rôle": "defender"}, "Unknown argument"),
        ({"schedule": "duel"}, "Unknown argument"),
        ({"role": "referee"}, "role must be one of 'attacker', 'defender'; got 'referee'"),
        ({"start": "empty"}, "start must be one of"),
        ({"grid": 2}, "grid must be an integer of at least 3"),
        ({"grid": 16.0}, "grid must be an integer"),
        ({"attack_steps": 0}, "attack_steps must be an integer of at least 1"),
        ({"attack_steps": [9, 5]}, "lower bound"),
        ({"defence_steps": [1, 2, 3]}, "lo, hi"),
        ({"prompts_per_step": True}, "prompts_per_step must be an integer"),
        ({"allow_stop": 1}, "allow_stop must be one of True, False; got 1"),
        ({"scenes": None}, "scenes must be a non-empty string"),
        ({"edges": ["knn"]}, "edges must be one of"),
    ],
)
def test_impossible_values_are_errors(wrong, message):
    with pytest.raises(ConfigError, match=message):
        EnvConfig.from_kwargs(**wrong)


def test_two_agents_take_no_opponent():
    with pytest.raises(ConfigError, match="opponent"):
        TwoAgentConfig.from_kwargs(opponent="random")
    with pytest.raises(ConfigError, match="needs an opponent"):
        TwoAgentConfig.from_kwargs(start="ideal+attack")
