"""What is written and shown while agents train: CSV, TensorBoard, W&B where asked, and a progress bar."""

from __future__ import annotations

import csv
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger, make_output_format
from tqdm import tqdm

from ppd_agents.dqn.exploration import EpsilonSchedule
from ppd_env.errors import ConfigError


class StepCallback(BaseCallback):
    """Moves the epsilon schedule and the progress bar with every environment step.

    Args:
        epsilon: The schedule, counted in environment steps; None where nothing is explored by it.
        bar: The bar, or None.
    """

    def __init__(self, epsilon: EpsilonSchedule | None, bar: tqdm | None) -> None:
        super().__init__()
        self._epsilon, self._bar = epsilon, bar

    def _on_step(self) -> bool:
        if self._epsilon is not None:
            self._epsilon.advance()
        if self._bar is not None:
            self._bar.update()
        return True


class WandbWriter(KVWriter):
    """Passes SB3's log records on to a W&B run.

    Args:
        run: The run, from ``open_wandb``.
        prefix: Put before every name, such as ``"attacker"``.
    """

    def __init__(self, run: Any, prefix: str) -> None:
        self._run, self._prefix = run, prefix

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Log the numbers among ``key_values`` at ``step``."""
        numbers = {
            f"{self._prefix}/{key}": value
            for key, value in key_values.items()
            if isinstance(value, int | float) and "wandb" not in key_excluded.get(key, ())
        }
        self._run.log(numbers | {f"{self._prefix}/step": step})

    def close(self) -> None:
        """Leave the run open: two loggers share it."""


class WandbRun:
    """A W&B run that several parts of one process log to; it ends when the last of them has finished.

    Args:
        run: W&B's own run.
        folder: The training it belongs to.
    """

    def __init__(self, run: Any, folder: Path) -> None:
        self.run, self._folder, self.users = run, folder, 1

    def log(self, values: Mapping[str, Any]) -> None:
        """Log numbers, pictures or tables by name."""
        self.run.log(dict(values))

    def finish(self) -> None:
        """Leave; the last one to leave ends the run."""
        self.users -= 1
        if self.users == 0:
            _open.pop(self._folder, None)
            self.run.finish()


_open: dict[Path, WandbRun] = {}


def open_wandb(mode: str, folder: Path, config: Mapping[str, Any]) -> WandbRun | None:
    """Start a W&B run where one is asked for, or join the one this process has open for the folder.

    A training that goes on after an interruption goes on in the same run: its id lies in ``wandb-id.txt``.

    Args:
        mode: ``"off"``: nothing happens, wandb is not even imported; ``"offline"``: files under ``folder``,
            no account needed, nothing sent; ``"online"``: W&B's own service.
        folder: Where W&B keeps its files.
        config: Recorded with the run.

    Returns:
        The run, or None.

    Raises:
        ConfigError: wandb is not installed, or its service cannot be used.
    """
    if mode == "off":
        return None
    folder = folder.resolve()
    if folder in _open:
        _open[folder].users += 1
        return _open[folder]
    try:
        import wandb
    except ImportError:
        raise ConfigError(
            "W&B logging was asked for, but wandb is not installed: pip install wandb."
        ) from None
    online = mode == "online"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        run = wandb.init(
            mode="online" if online else "offline",
            dir=os.fspath(folder),
            project="point-prompt-defender",
            name=folder.parent.name if folder.name == "training" else folder.name,
            id=_run_id(folder / "wandb-id.txt"),
            resume="allow" if online else None,
            config=dict(config),
            settings=wandb.Settings(console="off", silent=True, disable_git=True),
        )
    except wandb.Error as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(
            f"W&B cannot be used: {reason}. Run `wandb login`, or log with --wandb offline."
        ) from None
    for role in ("attacker", "defender"):
        run.define_metric(f"{role}/*", step_metric=f"{role}/step")
    for kind in ("round", "gallery"):
        run.define_metric(f"{kind}/*", step_metric="round")
    _open[folder] = WandbRun(run, folder)
    return _open[folder]


def _run_id(path: Path) -> str:
    """Return the id of a training's W&B run: the sweep's, that of earlier, or a new one that is kept."""
    chosen = os.environ.get("WANDB_RUN_ID")
    if not chosen and path.is_file():
        return path.read_text(encoding="utf-8").strip()
    chosen = chosen or secrets.token_hex(4)
    aside = path.with_suffix(".tmp")
    aside.write_text(chosen + "\n", encoding="utf-8")
    aside.replace(path)
    return chosen


def open_logger(folder: Path, role: str, first_round: int, tensorboard: bool, run: Any | None) -> Logger:
    """Return SB3's logger for one agent.

    Args:
        folder: Folder of the run; files go to ``logs/ROLE``.
        role: The agent.
        first_round: Where this process begins; a resumed run writes files of its own beside the earlier ones.
        tensorboard: Write TensorBoard files too.
        run: A W&B run, or None.

    Returns:
        The logger.
    """
    where = folder / "logs" / role
    where.mkdir(parents=True, exist_ok=True)
    suffix = f"-from-{first_round:06d}" if first_round else ""
    kinds = ["csv", "tensorboard"] if tensorboard else ["csv"]
    writers: list[KVWriter] = [make_output_format(kind, os.fspath(where), suffix) for kind in kinds]
    if run is not None:
        writers.append(WandbWriter(run, role))
    return Logger(os.fspath(where), writers)


def write_history(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write one line per round to a CSV file, aside first and then in one rename.

    Args:
        path: The file.
        history: One flat record per round, all with the same keys.
    """
    aside = path.with_suffix(".tmp")
    with aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]) if history else ["round"])
        writer.writeheader()
        writer.writerows(history)
    aside.replace(path)
