import pytest
import torch

from ppd_agents.dqn.losses import Loss
from ppd_env.errors import ConfigError

FOUND, WANTED = torch.tensor([[0.0], [0.0], [0.0]]), torch.tensor([[0.5], [2.0], [-3.0]])


def test_huber_is_square_up_to_delta_and_linear_beyond():
    assert Loss()(FOUND, WANTED).item() == pytest.approx((0.125 + 1.5 + 2.5) / 3)
    assert Loss("huber", 2.0)(FOUND, WANTED).item() == pytest.approx((0.125 + 2.0 + 4.0) / 3)


def test_mse_is_the_square():
    assert Loss("mse")(FOUND, WANTED).item() == pytest.approx((0.25 + 4 + 9) / 3)


@pytest.mark.parametrize("kind", ["huber", "mse"])
def test_weights_count_each_value(kind):
    weights = torch.tensor([[1.0], [0.0], [0.5]])
    alone = [Loss(kind)(FOUND[i : i + 1], WANTED[i : i + 1]).item() for i in range(3)]
    assert Loss(kind)(FOUND, WANTED, weights).item() == pytest.approx((alone[0] + 0.5 * alone[2]) / 3)


def test_impossible_losses_are_refused():
    with pytest.raises(ConfigError, match="huber, mse"):
        Loss("l1")
    with pytest.raises(ConfigError, match="huber_delta"):
        Loss("huber", 0.0)
