"""The command line, ``ppd``; heavy packages are imported by the command that needs them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg, subcommand

from ppd_agents.encode_command import Encode, run_encode
from ppd_agents.serve_command import Serve, run_serve
from ppd_env.allocator import keep_freed_memory
from ppd_env.errors import ConfigError, PPDError

if TYPE_CHECKING:
    from ppd_agents.dqn.agent import Agent
    from ppd_agents.evaluation.settings import EvaluationConfig
    from ppd_agents.training.presets import TrainConfig

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
    """Settings of the training; the ppd-* ones need a GPU, published weights and --scenes."""
    scenes: str | None = None
    """URI of the training scenes, such as fss1000:///data/fss; those of the preset where None."""
    device: str = "cpu"
    """A torch device, such as cuda."""
    json: JsonPath = None
    """Write the result here as well."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Log to Weights & Biases: offline needs no account, and only online sends anything."""
    skip_damaged: bool = False
    """Go on from the newest checkpoint that can be used; newer ones are set aside, not deleted."""


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
    """Settings of the training; the ppd-* ones need a GPU, published weights and --scenes."""
    scenes: str | None = None
    """URI of the training scenes, such as fss1000:///data/fss; those of the preset where None."""
    device: str = "cpu"
    """A torch device, such as cuda."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Log to Weights & Biases."""
    skip_damaged: bool = False
    """Go on from the newest checkpoint that can be used; newer ones are set aside, not deleted."""


@dataclass(frozen=True)
class Evaluate:
    """Measure trained agents on scenes of your choice, beside random and oracle controls.

    `--suite controls` compares several training seeds with every control; it goes on where it stopped.
    """

    suite: Literal["standard", "controls"] = "standard"
    """standard: one pair of agents; controls: several training seeds, every control, one-shot prompts."""
    agents: tuple[Path, ...] = ()
    """Folders that hold the agents `attacker` and `defender`, for the controls one per training seed; without
    any, runs/default/training, or for the controls agents that are trained first."""
    scenes: tuple[str, ...] = ()
    """URIs of scenes, such as folder:///data/mine?images=images&masks=masks; else shapes and photos."""
    data: Path | None = None
    """Controls: where the folders of real images lie, such as kvasir_seg; absent ones are left out."""
    budgets: tuple[int, ...] = (6, 20)
    """Numbers of attack actions; the defender has as many."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the ideal prompts and of the random moves; the controls take the first for all agents."""
    training_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Controls: seeds of the trainings, where no agents are named."""
    preset: Literal["mini", "ppd-arxiv", "ppd-cvpr"] = "mini"
    """Controls: settings of the trainings."""
    rivals: tuple[Literal["graph_statistics", "maskable_ppo"], ...] = ("graph_statistics", "maskable_ppo")
    """Controls: learned controls to train as well."""
    rival_seeds: int = 1
    """Controls: the first so many training seeds get learned controls; each takes as long as the agents."""
    sections: tuple[Literal["main", "lattice", "transfer"], ...] = ("main", "lattice", "transfer")
    """Controls: main; lattice, ideal prompts at a fixed interval; transfer, other segmenters and features."""
    other_seeds: int = 2
    """Controls: the first so many training seeds play in the sections other than main."""
    skip_damaged: bool = False
    """Controls: trainings go on from the newest checkpoint that can be used; newer ones are set aside."""
    transfer: tuple[str, ...] = ("mini+segmenter", "fake+fake")
    """Controls: SEGMENTER+FEATURES pairs of the transfer section."""
    runs: Path = Path("runs")
    """Controls: folder of all runs; trainings and finished stages go to RUNS/controls."""
    segmenter: str = "mini"
    """URI of the segmenter."""
    features: str | None = None
    """URI of the patch features; those the agents were trained on where None."""
    oracle_scenes: int = 40
    """The oracles play on the first so many scenes of each URI."""
    resamples: int = 2000
    """Bootstrap resamples."""
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
    """Look through sets of scenes: what was found, what is broken or missing; which are the references."""

    action: Positional[Literal["check", "references"]]
    """`check` reads every image and mask; `references` names the one-shot references of a set."""
    uri: Annotated[Positional[str], arg(metavar="URI")]
    """URI of scenes, such as voc:///data?split=val; for `check` also a folder, whose layout is recognised."""
    count: int = 5
    """References per class."""
    seed: int = 0
    """Seed of the references."""
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
    | Annotated[Encode, subcommand("encode")]
    | Annotated[Data, subcommand("data")]
    | Annotated[Serve, subcommand("serve")]
    | Annotated[Doctor, subcommand("doctor")]
)


def _checked_name(name: str) -> str:
    if not name or name != Path(name).name or name.startswith("."):
        raise ConfigError(f"The name of a run must be a plain folder name, got {name!r}.")
    return name


def _checked_device(name: str) -> str:
    from ppd_env.loading import as_device

    return str(as_device(name))


def _training(options: Run | Train) -> TrainConfig:
    from ppd_agents.training.presets import preset

    chosen = {} if options.scenes is None else {"scenes": options.scenes}
    device = _checked_device(options.device)
    return preset(options.preset, seed=options.seed, wandb=options.wandb, device=device, **chosen)


def _run(options: Run) -> int:
    from ppd_agents.evaluation.tables import write_json
    from ppd_agents.locking import sole_user
    from ppd_agents.pipeline import RunConfig, run_all

    folder = options.runs / _checked_name(options.name)
    train = _training(options)
    with sole_user(folder):
        config = RunConfig(train, name=options.name)
        result = run_all(config, folder, print, skip_damaged=options.skip_damaged)
    if options.json is not None:
        write_json(options.json, result)
    _print_tables(result)
    print(f"\nReport:  {folder / 'report.html'}\nNumbers: {folder / 'metrics.json'}")
    return 0


def _train(options: Train) -> int:
    from ppd_agents.locking import sole_user
    from ppd_agents.training.adversarial import train_adversarial

    run = options.runs / _checked_name(options.name)
    folder = run / "training"
    train = _training(options)
    with sole_user(run):
        train_adversarial(train, folder, resume=True, skip_damaged=options.skip_damaged)
    print(f"Agents: {folder / 'attacker'}, {folder / 'defender'}")
    return 0


def _evaluate(options: Evaluate) -> int:
    from ppd_agents.evaluation.tables import write_json

    result = _controls(options) if options.suite == "controls" else _standard(options)
    if options.json is not None:
        write_json(options.json, result)
        print(f"Numbers: {options.json}")
    _print_tables(result)
    return 0


def _standard(options: Evaluate) -> dict[str, object]:
    from ppd_agents.dqn.agent import load_agent
    from ppd_agents.evaluation.settings import EvaluationConfig
    from ppd_agents.evaluation.tables import evaluate
    from ppd_agents.pipeline import agents_fingerprint, policies

    folders = options.agents or (Path("runs/default/training"),)
    if len(folders) > 1:
        raise ConfigError("Several folders of agents are compared with --suite controls only.")
    for place in (folders[0] / role for role in ("attacker", "defender")):
        if not place.is_dir():
            raise PPDError(f"{place} holds no agent: run `ppd run` first, or pass --agents FOLDER.")
    device = _checked_device(options.device)
    agents = [load_agent(folders[0] / role, device) for role in ("attacker", "defender")]
    config = _evaluation(options, options.scenes or EvaluationConfig.scenes, agents[1], device)
    attacker, defender = policies(*agents)
    return evaluate(config, attacker, defender, agents=agents_fingerprint(*agents), progress=True)


def _controls(options: Evaluate) -> dict[str, object]:
    from ppd_agents.contestants import load_contestant, train_contestant, with_leading_rivals
    from ppd_agents.locking import sole_user
    from ppd_agents.suite import SCENES, find_scenes, run_suite, sections
    from ppd_agents.training.presets import preset

    if not options.training_seeds or not options.sections or options.other_seeds < 1:
        raise ConfigError(
            "Name at least one of --training-seeds and --sections, and --other-seeds from 1 on."
        )
    device, folder = _checked_device(options.device), options.runs / "controls"
    scenes = find_scenes(options.scenes or SCENES, options.data)
    with sole_user(folder):
        if options.agents:
            found = [load_contestant(path, number, device) for number, path in enumerate(options.agents)]
        else:
            configs = [preset(options.preset, seed=seed, device=device) for seed in options.training_seeds]
            found = [
                train_contestant(
                    config,
                    folder / f"seed-{config.seed}",
                    options.rivals if number < options.rival_seeds else (),
                    skip_damaged=options.skip_damaged,
                )
                for number, config in enumerate(configs)
            ]
        config = _evaluation(options, tuple(scenes.uris.values()), found[0].defender, device)
        parts = sections(config, options.sections, options.transfer)
        return run_suite(
            with_leading_rivals(found),
            parts,
            scenes,
            folder / "evaluation",
            print,
            other_seeds=options.other_seeds,
        )


def _evaluation(options: Evaluate, scenes: tuple[str, ...], defender: Agent, device: str) -> EvaluationConfig:
    from ppd_agents.evaluation.settings import EvaluationConfig

    return EvaluationConfig(
        scenes=scenes,
        segmenter=options.segmenter,
        features=options.features or defender.features,
        grid=defender.grid,
        budgets=options.budgets,
        seeds=options.seeds,
        oracle_scenes=options.oracle_scenes,
        resamples=options.resamples,
        device=device,
    )


def _print_tables(result: dict[str, object]) -> None:
    from ppd_agents.report.text import text_tables

    print(text_tables(result))


def _refine(options: Refine) -> int:
    from ppd_agents.refining import refine_files

    print(refine_files(options.image, options.points, options.out, options.defender, options.segmenter))
    return 0


def _data(options: Data) -> int:
    from ppd_agents.evaluation.tables import write_json
    from ppd_agents.inspection import check_path, check_scenes, list_references

    result: dict[str, Any]
    if options.action == "references":
        chosen = list_references(options.uri, options.count, options.seed)
        text, result, whole = chosen.text(), chosen.to_json(), True
    elif "://" in options.uri:
        found = check_scenes(options.uri, progress=True)
        text, result, whole = found.text(), found.to_json(), found.whole
    else:
        checks = check_path(Path(options.uri), progress=True)
        text, whole = "\n\n".join(check.text() for check in checks), all(check.whole for check in checks)
        result = {"path": options.uri, "sets": [check.to_json() for check in checks]}
    print(text)
    if options.json is not None:
        write_json(options.json, result)
    return 0 if whole else 1


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
    Encode: run_encode,
    Data: _data,
    Serve: run_serve,
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
        resumable = isinstance(options, Run | Train | Encode) or getattr(options, "suite", "") == "controls"
        hope = "; the same command goes on where it stopped" if resumable else ""
        print(f"\nppd: interrupted{hope}.", file=sys.stderr)
        code = 130
    sys.exit(code)
