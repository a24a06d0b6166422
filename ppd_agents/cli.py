"""The command line, ``ppd``; heavy packages are imported by the command that needs them."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg, subcommand

from ppd_agents.bench_command import Bench, run_bench_command
from ppd_agents.benchmark_command import Benchmark, run_benchmark
from ppd_agents.data_command import Data, run_data
from ppd_agents.doctor_command import Doctor, run_doctor
from ppd_agents.encode_command import Encode, run_encode
from ppd_agents.export_command import Export, run_export
from ppd_agents.failures import guarded, refuse_unwritable
from ppd_agents.play_command import Play, run_play
from ppd_agents.robustness_command import Robustness, asked, run_robustness
from ppd_agents.serve_command import Serve, run_serve
from ppd_agents.table_command import TableOptions, run_table
from ppd_agents.validate_command import Validate, run_validate
from ppd_env.allocator import keep_freed_memory
from ppd_env.errors import ConfigError, PPDError

if TYPE_CHECKING:
    from ppd_agents.dqn.agent import Agent
    from ppd_agents.evaluation.settings import EvaluationConfig
    from ppd_agents.training.presets import TrainConfig

JsonPath = Annotated[Path | None, arg(metavar="PATH")]
_CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)


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
    """Log to Weights & Biases: offline needs no account, and only online sends anything."""
    settings: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE")] = ()
    """Fields of TrainConfig to change, such as learning_rate=0.001 steps=[2,12]; a sweep writes them."""
    skip_damaged: bool = False
    """Go on from the newest checkpoint that can be used; newer ones are set aside, not deleted."""


@dataclass(frozen=True)
class Evaluate(TableOptions):
    """Measure trained agents on scenes of your choice, beside random and oracle controls.

    `--suite controls` compares several training seeds with every control, `--table` measures a table of the
    paper; both go on where they stopped.
    """

    suite: Literal["standard", "controls"] = "standard"
    """standard: one pair of agents; controls: several training seeds, every control, one-shot prompts."""
    agents: tuple[Path, ...] = ()
    """Folders that hold the agents `attacker` and `defender`, for the controls one per training seed; without
    any, runs/default/training, or for the controls agents that are trained first."""
    scenes: tuple[str, ...] = ()
    """URIs of scenes, such as folder:///data/mine?images=images&masks=masks; else shapes and photos."""
    data: Path | None = None
    """Controls: where the folders of real images lie, such as kvasir_seg; absent ones are left out. Tables: a
    folder of which every set of a known layout is measured."""
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
    transfer: tuple[str, ...] = ()
    """SEGMENTER or SEGMENTER+FEATURES each: attacks on each are decoded and defended on all. Controls: those
    of the transfer section; mini+segmenter and fake+fake where none is named."""
    robustness: Robustness = field(default_factory=Robustness)
    runs: Path = Path("runs")
    """Folder of all runs: stages go to RUNS/controls, RUNS/tables, RUNS/curves-... or RUNS/transfer."""
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
class Completion:
    """Print a script that completes ppd's commands and options in your shell.

    In bash: `source <(ppd completion bash)`, also as a line of ~/.bashrc. For zsh and fish: docs/play.md.
    """

    shell: Positional[Literal["bash", "zsh", "fish"]]
    """The shell."""


Command = (
    Annotated[Run, subcommand("run")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Refine, subcommand("refine")]
    | Annotated[Encode, subcommand("encode")]
    | Annotated[Data, subcommand("data")]
    | Annotated[Bench, subcommand("bench")]
    | Annotated[Play, subcommand("play")]
    | Annotated[Export, subcommand("export")]
    | Annotated[Benchmark, subcommand("benchmark")]
    | Annotated[Validate, subcommand("validate")]
    | Annotated[Serve, subcommand("serve")]
    | Annotated[Doctor, subcommand("doctor")]
    | Annotated[Completion, subcommand("completion")]
)


def _checked_name(name: str) -> str:
    if not name or name != Path(name).name or name.startswith("."):
        raise ConfigError(f"The name of a run must be a plain folder name, got {name!r}.")
    return name


def _checked_device(name: str) -> str:
    from ppd_env.loading import as_device

    return str(as_device(name))


def _training(options: Run | Train) -> TrainConfig:
    from ppd_agents.tracking import parse_changes
    from ppd_agents.training.presets import preset

    chosen = parse_changes(options.settings) if isinstance(options, Train) else {}
    if options.scenes is not None:
        chosen["scenes"] = options.scenes
    device = _checked_device(options.device)
    named = {"seed": options.seed, "wandb": options.wandb, "device": device}
    return preset(options.preset, **named | chosen)


def _run(options: Run) -> int:
    from ppd_agents.locking import sole_user
    from ppd_agents.pipeline import RunConfig, run_all
    from ppd_env.whole_files import write_json

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
    from ppd_agents.tracking import sweep_name, tracking
    from ppd_agents.training.adversarial import train_adversarial

    run = options.runs / (sweep_name() or _checked_name(options.name))
    folder = run / "training"
    train = _training(options)
    with sole_user(run), tracking(train, folder) as tracker:
        result = train_adversarial(
            train, folder, resume=True, skip_damaged=options.skip_damaged, on_round=tracker.on_round
        )
        tracker.trained(result)
    print(f"Agents: {folder / 'attacker'}, {folder / 'defender'}")
    return 0


def _evaluate(options: Evaluate) -> int:
    from ppd_env.whole_files import write_json

    if asked(options):
        return run_robustness(options, partial(_evaluation, options))
    if options.table is not None:
        result = run_table(options)
    else:
        result = _controls(options) if options.suite == "controls" else _standard(options)
        _print_tables(result)
    if options.json is not None:
        write_json(options.json, result)
        print(f"Numbers: {options.json}")
    return 0


def _keeps_stages(options: Command) -> bool:
    if not isinstance(options, Evaluate):
        return False
    return options.suite == "controls" or options.table is not None or asked(options)


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
    from ppd_agents.suite import SCENES, TRANSFER, find_scenes, run_suite, sections
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
        parts = sections(config, options.sections, options.transfer or TRANSFER)
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


def _completion(options: Completion) -> int:
    tyro.cli(Command, prog="ppd", args=["--tyro-write-completion", options.shell, "-"], config=_CONFIG)
    return 0


_HANDLERS: dict[type, Callable[..., int]] = {
    Run: _run,
    Train: _train,
    Evaluate: _evaluate,
    Refine: _refine,
    Encode: run_encode,
    Data: run_data,
    Bench: run_bench_command,
    Benchmark: run_benchmark,
    Validate: run_validate,
    Play: run_play,
    Export: run_export,
    Serve: run_serve,
    Doctor: run_doctor,
    Completion: _completion,
}


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit; whatever goes wrong is one sentence, see ``failures.guarded``.

    Args:
        arguments: What follows ``ppd``; the process's own arguments where None.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen: list[Any] = []

    def work() -> int:
        words = [word for word in given if word != "--debug"]
        if words == ["--version"]:
            print(f"ppd {version('point-prompt-defender')} (Python {platform.python_version()})")
            return 0
        chosen.append(_parsed(words))
        refuse_unwritable(getattr(chosen[0], "json", None))
        keep_freed_memory()
        return _HANDLERS[type(chosen[0])](chosen[0])

    sys.exit(guarded(work, debug="--debug" in given, hope=lambda: _hope(*chosen)))


def _parsed(words: list[str]) -> Any:
    return tyro.cli(
        Command,
        prog="ppd",
        description="Point Prompt Defender: attack and defend the point prompts of a segmenter. "
        "Every command takes --debug, which shows where an error came from; ppd --version tells the version.",
        args=words,
        config=_CONFIG,
    )


def _hope(options: Any = None) -> str:
    """Say what follows an interruption, where the command can go on."""
    resumable = isinstance(options, Run | Train | Encode | Benchmark) or _keeps_stages(options)
    return "the same command goes on where it stopped" if resumable else ""
