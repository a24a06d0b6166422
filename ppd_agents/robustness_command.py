"""``ppd evaluate --curves`` and ``--transfer``: their options, what they play, and the files they write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ppd_agents.contestants import Contestant
    from ppd_agents.evaluate_command import Evaluate
    from ppd_agents.evaluation.curves import CurvePlan
    from ppd_agents.evaluation.settings import EvaluationConfig

TRAINED_HERE = Path("runs/default/training")


@dataclass(frozen=True)
class Robustness:
    """Curves of Dice against how wrong prompts are, and attacks carried over to other segmenters."""

    curves: Literal["corruption", "attack"] | None = None
    """Curves of Dice: against the share of corrupted prompts, or against the budget of an attack."""
    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    """Curves: shares of corrupted prompts; 0, the ideal prompts, is always measured."""
    curve_budgets: tuple[int, ...] = (1, 2, 4, 6, 10, 20, 40)
    """Curves: numbers of attack actions; 0 is always measured."""
    rules: tuple[str, ...] = ("subsample", "outlier", "neighbours")
    """Curves: rules without learning that defend as well; also leave_one_out, lattice, count."""
    free_defence: bool = False
    """Curves against attacks: defences stop by themselves; otherwise they have as many actions as the attack.
    Against corruption they always stop by themselves."""
    transfer_attacks: tuple[Literal["learned", "oracle"], ...] = ("learned", "oracle")
    """Transfer of attacks between segmenters: which attacks; the oracle plays on the first scenes only."""


def asked(options: Evaluate) -> bool:
    """Tell whether an evaluation asks for curves or for attacks on several segmenters."""
    return options.suite == "standard" and (options.robustness.curves is not None or bool(options.transfer))


def run_robustness(options: Evaluate, configure: Callable[..., EvaluationConfig]) -> int:
    """Measure, write JSON, CSV and pictures to a folder of RUNS, and print the areas or matrices.

    Args:
        options: What was asked for.
        configure: (scenes, defender, device) -> what an evaluation with these options measures.

    Returns:
        The exit code.

    Raises:
        ConfigError: Options do not go together.
        PPDError: Agents or scenes cannot be used.
    """
    from ppd_agents.evaluation.settings import EvaluationConfig
    from ppd_agents.locking import sole_user
    from ppd_agents.robustness import RunFolder, run_curves, run_transfer
    from ppd_env.errors import ConfigError
    from ppd_env.loading import as_device

    if options.robustness.curves is not None and options.transfer:
        raise ConfigError("--curves and --transfer are two measurements: ask for one at a time.")
    device = str(as_device(options.device))
    players = _players(options.agents, device)
    config = configure(options.scenes or EvaluationConfig.scenes, players[0].defender, device)
    kind = options.robustness.curves
    name = "transfer" if kind is None else f"curves-{kind}"
    with sole_user(options.runs / name):
        folder = RunFolder(options.runs / name, options.json)
        if kind is None:
            text = run_transfer(
                options.transfer, players, config, options.robustness.transfer_attacks, folder
            )
        else:
            points = (
                _percents(options.robustness.shares)
                if kind == "corruption"
                else options.robustness.curve_budgets
            )
            config = replace(config, budgets=tuple(sorted(set(points) - {0})))
            text = run_curves(_plan(options.robustness), players, config, folder)
    print(text)
    return 0


def _plan(options: Robustness) -> CurvePlan:
    from ppd_agents.evaluation.curves import CurvePlan

    assert options.curves is not None
    return CurvePlan(options.curves, options.rules, options.free_defence)


def _players(agents: Sequence[Path], device: str) -> list[Contestant]:
    """Load the agents: those named, else those of ``ppd run``, else those that ship."""
    from ppd_agents.contestants import Contestant
    from ppd_agents.shipped import open_agent

    named = agents or (TRAINED_HERE if TRAINED_HERE.is_dir() else Path("mini"),)
    return [
        Contestant(number, open_agent(path, "attacker", device), open_agent(path, "defender", device))
        for number, path in enumerate(named)
    ]


def _percents(shares: Sequence[float]) -> tuple[int, ...]:
    """Turn shares into whole percents."""
    from ppd_env.errors import ConfigError

    percents = tuple(round(100 * share) for share in shares)
    for share, percent in zip(shares, percents, strict=True):
        if not 0 <= share <= 1 or abs(100 * share - percent) > 1e-9:
            raise ConfigError(f"--shares must be whole percents from 0 to 1, such as 0.25, got {share:g}.")
    return percents
