"""``ppd evaluate``: its options, and what they ask for; heavy packages are imported by what needs them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from ppd_agents.robustness_command import Robustness, asked, run_robustness
from ppd_agents.table_command import TableOptions, run_table
from ppd_env.errors import ConfigError, PPDError

if TYPE_CHECKING:
    from ppd_agents.dqn.agent import Agent
    from ppd_agents.evaluation.settings import EvaluationConfig


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
    segmenter: str | None = None
    """URI of the segmenter; the one the agents were trained with where None."""
    features: str | None = None
    """URI of the patch features; those the agents were trained on where None."""
    oracle_scenes: int = 40
    """The oracles play on the first so many scenes of each URI."""
    resamples: int = 2000
    """Bootstrap resamples."""
    device: str = "cpu"
    """A torch device, such as cuda."""
    json: Annotated[Path | None, arg(metavar="PATH")] = None
    """Write the result file here."""


def run_evaluate(options: Evaluate) -> int:
    """Measure what was asked for, print it, and return the exit code."""
    from ppd_agents.report.text import text_tables
    from ppd_env.whole_files import write_json

    named = [
        f"--{name}"
        for name, wanted in (
            ("table", options.table is not None),
            ("curves", options.robustness.curves is not None),
            ("suite controls", options.suite == "controls"),
        )
        if wanted
    ]
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} are different measurements: name one of them.")
    if asked(options):
        return run_robustness(options, partial(evaluation_config, options))
    if options.table is not None:
        result = run_table(options)
    else:
        result = _controls(options) if options.suite == "controls" else _standard(options)
        print(text_tables(result))
    if options.json is not None:
        write_json(options.json, result)
        print(f"Numbers: {options.json}")
    return 0


def keeps_stages(options: Evaluate) -> bool:
    """Tell whether an interrupted evaluation goes on where it stopped."""
    return options.suite == "controls" or options.table is not None or asked(options)


def _standard(options: Evaluate) -> dict[str, object]:
    from ppd_agents.dqn.agent import load_agent
    from ppd_agents.evaluation.settings import EvaluationConfig
    from ppd_agents.evaluation.tables import evaluate
    from ppd_agents.pipeline import agents_fingerprint, policies
    from ppd_env.loading import as_device

    folders = options.agents or (Path("runs/default/training"),)
    if len(folders) > 1:
        raise ConfigError("Several folders of agents are compared with --suite controls only.")
    for place in (folders[0] / role for role in ("attacker", "defender")):
        if not place.is_dir():
            raise PPDError(f"{place} holds no agent: run `ppd run` first, or pass --agents FOLDER.")
    device = str(as_device(options.device))
    agents = [load_agent(folders[0] / role, device) for role in ("attacker", "defender")]
    config = evaluation_config(options, options.scenes or EvaluationConfig.scenes, agents[1], device)
    attacker, defender = policies(*agents)
    return evaluate(config, attacker, defender, agents=agents_fingerprint(*agents), progress=True)


def _controls(options: Evaluate) -> dict[str, object]:
    from ppd_agents.contestants import load_contestant, refuse_mixed, train_contestant, with_leading_rivals
    from ppd_agents.locking import sole_user
    from ppd_agents.suite import SCENES, TRANSFER, find_scenes, run_suite, sections
    from ppd_agents.training.presets import preset
    from ppd_env.loading import as_device

    if not options.training_seeds or not options.sections or options.other_seeds < 1:
        raise ConfigError(
            "Name at least one of --training-seeds and --sections, and --other-seeds from 1 on."
        )
    device, folder = str(as_device(options.device)), options.runs / "controls"
    scenes = find_scenes(options.scenes or SCENES, options.data)
    with sole_user(folder):
        if options.agents:
            found = [load_contestant(path, number, device) for number, path in enumerate(options.agents)]
            refuse_mixed(found)
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
        config = evaluation_config(options, tuple(scenes.uris.values()), found[0].defender, device)
        parts = sections(config, options.sections, options.transfer or TRANSFER)
        return run_suite(
            with_leading_rivals(found),
            parts,
            scenes,
            folder / "evaluation",
            print,
            other_seeds=options.other_seeds,
        )


def evaluation_config(
    options: Evaluate, scenes: tuple[str, ...], defender: Agent, device: str
) -> EvaluationConfig:
    """Return what the options ask to measure; models and grid they do not name are those of the training."""
    from ppd_agents.evaluation.settings import EvaluationConfig

    return EvaluationConfig(
        scenes=scenes,
        segmenter=options.segmenter or defender.segmenter,
        features=options.features or defender.features,
        grid=defender.grid,
        budgets=options.budgets,
        seeds=options.seeds,
        oracle_scenes=options.oracle_scenes,
        resamples=options.resamples,
        device=device,
    )
