"""The command line, ``ppd``; heavy packages are imported by the command that needs them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg, subcommand

from ppd_env.allocator import keep_freed_memory
from ppd_env.errors import ConfigError, PPDError

JsonPath = Annotated[Path | None, arg(metavar="PATH")]


@dataclass(frozen=True)
class Run:
    """Train attacker and defender, evaluate them, write a report; run again after an interruption."""

    name: str = "default"
    """Name of the run; everything goes to RUNS/NAME."""
    runs: Path = Path("runs")
    """Folder of all runs."""
    seed: int = 0
    """Seed of training and evaluation."""
    preset: Literal["mini", "ppd-arxiv", "ppd-cvpr"] = "mini"
    """Settings of the training; the ppd-* ones name models and data this version cannot load yet."""
    device: str = "cpu"
    """A torch device, such as cuda."""
    json: JsonPath = None
    """Write the result here as well."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Log to Weights & Biases: offline needs no account, and only online sends anything."""


@dataclass(frozen=True)
class Train:
    """Train attacker and defender; `ppd run` with the same name and seed takes the result over."""

    name: str = "default"
    """Name of the run; agents, logs and checkpoints go to RUNS/NAME/training."""
    runs: Path = Path("runs")
    """Folder of all runs."""
    seed: int = 0
    """Seed of the training."""
    preset: Literal["mini", "ppd-arxiv", "ppd-cvpr"] = "mini"
    """Settings of the training."""
    device: str = "cpu"
    """A torch device, such as cuda."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Log to Weights & Biases."""


@dataclass(frozen=True)
class Evaluate:
    """Measure trained agents on scenes of your choice, beside random and oracle controls."""

    agents: Path = Path("runs/default/training")
    """Folder that holds the agents `attacker` and `defender`."""
    scenes: tuple[str, ...] = ("shapes://test?count=200&seed=0", "photos://test")
    """URIs of scenes, such as folder:///data/mine?images=images&masks=masks."""
    budgets: tuple[int, ...] = (6, 20)
    """Numbers of attack actions; the defender has as many."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the ideal prompts and of the random moves."""
    segmenter: str = "mini"
    """URI of the segmenter."""
    oracle_scenes: int = 40
    """The oracles play on the first so many scenes of each URI."""
    device: str = "cpu"
    """A torch device, such as cuda."""
    json: JsonPath = None
    """Write the result file here."""


@dataclass(frozen=True)
class Refine:
    """Clean the point prompts of one image with a trained defender."""

    image: Annotated[Positional[Path], arg(metavar="IMAGE")]
    """The image."""
    points: Path
    """JSON file: {"points": [[x, y], ...], "labels": [1, 0, ...]} in pixels; 1 positive, 0 negative."""
    out: Path
    """Folder for mask.png, points.json (the kept points) and overlay.png."""
    defender: str | None = None
    """Folder of a trained defender; where none is named, the one of `ppd run`, else the one that ships."""
    segmenter: str = "mini"
    """URI of the segmenter."""


@dataclass(frozen=True)
class Data:
    """Look through scenes: what was found, and what is broken and why."""

    action: Positional[Literal["check"]]
    """`check` reads every image and mask."""
    uri: Annotated[Positional[str], arg(metavar="URI")]
    """URI of scenes, such as folder:///data/mine?images=images&masks=masks."""
    json: JsonPath = None
    """Write what was found here."""


@dataclass(frozen=True)
class Doctor:
    """Check that system libraries, packages and embedded weights work on this machine."""

    json: JsonPath = field(default=None)
    """Write what was found here."""


Command = (
    Annotated[Run, subcommand("run")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Refine, subcommand("refine")]
    | Annotated[Data, subcommand("data")]
    | Annotated[Doctor, subcommand("doctor")]
)


def _checked_name(name: str) -> str:
    if not name or name != Path(name).name or name.startswith("."):
        raise ConfigError(f"The name of a run must be a plain folder name, got {name!r}.")
    return name


def _checked_device(name: str) -> str:
    from ppd_env.loading import as_device

    return str(as_device(name))


def _run(options: Run) -> int:
    from ppd_agents.evaluation.tables import write_json
    from ppd_agents.locking import sole_user
    from ppd_agents.pipeline import RunConfig, run_all
    from ppd_agents.training.presets import preset

    folder = options.runs / _checked_name(options.name)
    train = preset(
        options.preset, seed=options.seed, wandb=options.wandb, device=_checked_device(options.device)
    )
    with sole_user(folder):
        result = run_all(RunConfig(train, name=options.name), folder, print)
    if options.json is not None:
        write_json(options.json, result)
    _print_tables(result)
    print(f"\nReport:  {folder / 'report.html'}\nNumbers: {folder / 'metrics.json'}")
    return 0


def _train(options: Train) -> int:
    from ppd_agents.locking import sole_user
    from ppd_agents.training.adversarial import train_adversarial
    from ppd_agents.training.presets import preset

    run = options.runs / _checked_name(options.name)
    folder = run / "training"
    train = preset(
        options.preset, seed=options.seed, wandb=options.wandb, device=_checked_device(options.device)
    )
    with sole_user(run):
        train_adversarial(train, folder, resume=True)
    print(f"Agents: {folder / 'attacker'}, {folder / 'defender'}")
    return 0


def _evaluate(options: Evaluate) -> int:
    from ppd_agents.dqn.agent import load_agent
    from ppd_agents.evaluation.settings import EvaluationConfig
    from ppd_agents.evaluation.tables import evaluate, write_json
    from ppd_agents.pipeline import agents_fingerprint, policies

    device = _checked_device(options.device)
    agents = [load_agent(options.agents / role, device) for role in ("attacker", "defender")]
    config = EvaluationConfig(
        scenes=options.scenes,
        segmenter=options.segmenter,
        features=agents[1].features,
        grid=agents[1].grid,
        budgets=options.budgets,
        seeds=options.seeds,
        oracle_scenes=options.oracle_scenes,
        device=device,
    )
    attacker, defender = policies(*agents)
    result = evaluate(config, attacker, defender, agents=agents_fingerprint(*agents), progress=True)
    if options.json is not None:
        write_json(options.json, result)
        print(f"Numbers: {options.json}")
    _print_tables(result)
    return 0


def _print_tables(result: dict[str, object]) -> None:
    from ppd_agents.report.text import text_tables

    print(text_tables(result))


def _refine(options: Refine) -> int:
    from ppd_agents.refining import refine_files

    print(refine_files(options.image, options.points, options.out, options.defender, options.segmenter))
    return 0


def _data(options: Data) -> int:
    from ppd_agents.evaluation.tables import write_json
    from ppd_agents.inspection import check_scenes

    found = check_scenes(options.uri, progress=True)
    print(found.text())
    if options.json is not None:
        write_json(options.json, found.to_json())
    return 1 if found.problems else 0


def _doctor(options: Doctor) -> int:
    from ppd_agents.doctor import examine, text

    checks = examine()
    print(text(checks))
    if options.json is not None:
        from ppd_agents.evaluation.tables import write_json

        write_json(options.json, {check.name: {"ok": check.ok, "detail": check.detail} for check in checks})
    return 0 if all(check.ok for check in checks) else 1


_HANDLERS: dict[type, Callable[..., int]] = {
    Run: _run,
    Train: _train,
    Evaluate: _evaluate,
    Refine: _refine,
    Data: _data,
    Doctor: _doctor,
}


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit; an error a user can act on is one sentence and exit code 2.

    Args:
        arguments: What follows ``ppd``; the process's own arguments where None.
    """
    options = tyro.cli(
        Command,
        prog="ppd",
        description="Point Prompt Defender: attack and defend the point prompts of a segmenter.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    keep_freed_memory()
    try:
        code = _HANDLERS[type(options)](options)
    except PPDError as error:
        print(f"ppd: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        resumable = isinstance(options, Run | Train)
        hope = "; the same command goes on where it stopped" if resumable else ""
        print(f"\nppd: interrupted{hope}.", file=sys.stderr)
        code = 130
    sys.exit(code)
