"""The command line, ``ppd``; heavy packages are imported by the command that needs them."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
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
from ppd_agents.evaluate_command import Evaluate, keeps_stages, run_evaluate
from ppd_agents.export_command import Export, run_export
from ppd_agents.failures import guarded, refuse_unwritable
from ppd_agents.play_command import Play, run_play
from ppd_agents.serve_command import Serve, run_serve
from ppd_agents.validate_command import Validate, run_validate
from ppd_env.allocator import keep_freed_memory
from ppd_env.errors import ConfigError

if TYPE_CHECKING:
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
    matched: bool = False
    """The points come from feature matching or another one-shot prompter, not from clicks."""


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


def _training(options: Run | Train) -> TrainConfig:
    from ppd_agents.tracking import parse_changes
    from ppd_agents.training.presets import preset
    from ppd_env.loading import as_device

    chosen = parse_changes(options.settings) if isinstance(options, Train) else {}
    if options.scenes is not None:
        chosen["scenes"] = options.scenes
    named = {"seed": options.seed, "wandb": options.wandb, "device": options.device} | chosen
    return preset(options.preset, **named | {"device": str(as_device(named["device"]))})


def _run(options: Run) -> int:
    from ppd_agents.locking import sole_user
    from ppd_agents.pipeline import RunConfig, run_all
    from ppd_agents.report.text import text_tables
    from ppd_env.whole_files import write_json

    folder = options.runs / _checked_name(options.name)
    train = _training(options)
    with sole_user(folder):
        config = RunConfig(train, name=options.name)
        result = run_all(config, folder, print, skip_damaged=options.skip_damaged)
    if options.json is not None:
        write_json(options.json, result)
    print(text_tables(result))
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


def _refine(options: Refine) -> int:
    from ppd_agents.refining import refine_files

    given = (options.image, options.points, options.out, options.defender, options.segmenter)
    print(refine_files(*given, matched=options.matched))
    return 0


def _completion(options: Completion) -> int:
    tyro.cli(Command, prog="ppd", args=["--tyro-write-completion", options.shell, "-"], config=_CONFIG)
    return 0


_HANDLERS: dict[type, Callable[..., int]] = {
    Run: _run,
    Train: _train,
    Evaluate: run_evaluate,
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
    resumable = isinstance(options, Run | Train | Encode | Benchmark) or (
        isinstance(options, Evaluate) and keeps_stages(options)
    )
    return "the same command goes on where it stopped" if resumable else ""
