"""What ``ppd evaluate --curves`` and ``--transfer`` do: measure, write JSON, CSV and pictures; resumable."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ppd_agents.contestants import Contestant
from ppd_agents.evaluation.cleaners import cleaner_settings
from ppd_agents.evaluation.curves import CurvePlan, tabulate_curves
from ppd_agents.evaluation.measure import Pass, measure_scenes, scene_notes
from ppd_agents.evaluation.rows import Rival
from ppd_agents.evaluation.settings import EvaluationConfig, on_models
from ppd_agents.evaluation.tables import as_plain, versions
from ppd_agents.evaluation.transfer import Attack, Home, alike, measure_transfer, tabulate_transfer
from ppd_agents.pipeline import Clock, agents_fingerprint, policies
from ppd_agents.report.pictures import TITLES, curve_picture, matrix_picture, save_picture
from ppd_agents.report.summary import interval, percent, ratio, ratio_interval
from ppd_env.errors import ConfigError
from ppd_env.whole_files import write_in_one_rename, write_json

_RECOVERY = ("recovery", "recovery_low", "recovery_high", "n")

FIELDS = {
    "curves": (
        *("scenes", "harm", "line", "at", "mdsc", "mdsc_low", "mdsc_high", "miou", "miou_low", "miou_high"),
        *_RECOVERY,
    ),
    "transfer": (
        *("scenes", "budget", "attack", "attacked_on", "decoded_by", "drop", "drop_low", "drop_high"),
        *_RECOVERY,
    ),
}
"""Columns of ``curves.csv`` and ``transfer.csv``; ``at`` is a point, or ``area`` for that of the curve."""


@dataclass(frozen=True)
class RunFolder:
    """Where a measurement goes.

    Args:
        path: Takes the files and, in ``stages``, finished rows, from which an interrupted run goes on.
        json: Takes a copy of the result; None for none.
    """

    path: Path
    json: Path | None = None

    def write(self, name: str, result: Mapping[str, Any], table: Iterable[Mapping[str, Any]]) -> None:
        """Write NAME.json, and NAME.csv with a line for each entry of ``table``."""
        for target in (self.path / f"{name}.json", self.json):
            if target is not None:
                write_json(target, result)
        text = io.StringIO()
        writer = csv.DictWriter(text, FIELDS[name])
        writer.writeheader()
        writer.writerows(table)
        write_in_one_rename(self.path / f"{name}.csv", text.getvalue().encode())


def run_curves(
    plan: CurvePlan,
    players: Sequence[Contestant],
    config: EvaluationConfig,
    folder: RunFolder,
    *,
    progress: bool = True,
) -> str:
    """Measure curves on every set of scenes, and write ``curves.json``, ``curves.csv`` and pictures.

    Args:
        plan: Which curves.
        players: Pairs of agents; each plays under every seed.
        config: What is measured; its budgets are the points of the curves but 0.
        folder: Where the files go.
        progress: Show progress bars.

    Returns:
        The areas and recoveries, in words for a terminal.
    """
    clock = Clock(folder.path / "time.json")
    stages = folder.path / "stages" / ("free" if plan.endless else "equal")
    passes = [
        Pass(
            seed,
            plan.rows(*policies(one.attacker, one.defender), config),
            one.fingerprint,
            stages / one.fingerprint,
        )
        for one in players
        for seed in config.seeds
    ]
    shared = stages / "shared" if len(config.seeds) == 1 else None  # rows of no agent serve one seed
    points, curves, notes, pictures = {}, {}, {}, []
    for uri in config.scenes:
        found = measure_scenes(uri, config, passes, shared=shared, progress=progress)
        clock.save()
        notes[uri] = scene_notes(found.bank, config)
        points[uri], curves[uri] = (as_plain(part) for part in tabulate_curves(found, plan, config))
        title = f"{uri}, {len(found.bank)} scenes, segmenter {config.segmenter}"
        picture = curve_picture(curves[uri], points[uri], title)
        pictures += save_picture(picture, folder.path / f"curves-{_file_name(uri)}")
    result = _result(f"evaluate --curves {plan.kind}", config, clock)
    result |= {"results": points, "curves": curves}
    result["config"] |= {
        "plan": asdict(plan),
        "agents": [one.fingerprint for one in players],
        "cleaners": cleaner_settings(),
        "scene_sets": notes,
    }
    folder.write("curves", as_plain(result), _curve_lines(points, curves))
    return "\n".join([*_curve_text(curves), "", *_where(folder, "curves", pictures)])


def run_transfer(
    models: Sequence[str],
    players: Sequence[Contestant],
    config: EvaluationConfig,
    attacks: Sequence[Attack],
    folder: RunFolder,
    *,
    progress: bool = True,
) -> str:
    """Measure attacks on each of several models, and write ``transfer.json``, ``transfer.csv`` and pictures.

    Args:
        models: ``SEGMENTER`` or ``SEGMENTER+FEATURES`` each.
        players: One pair of agents for all, or one for each of the models, whose attacker plays there; the
            first one's defender defends everywhere.
        config: What is measured.
        attacks: Which attacks.
        folder: Where the files go.
        progress: Show progress bars.

    Returns:
        The matrices, in words for a terminal.

    Raises:
        ConfigError: A model is named twice, no attack is named, or agents and models do not match in number.
    """
    if len(set(models)) < len(models) or not attacks:
        raise ConfigError("Name at least one of --transfer-attacks, and each model of --transfer once.")
    if len(players) not in (1, len(models)):
        raise ConfigError(
            f"{len(models)} models to transfer between need one folder of agents, or one each, got "
            f"{len(players)}."
        )
    clock = Clock(folder.path / "time.json")
    homes = _homes(models, players)
    first = players[0]
    guard = Rival(policies(first.attacker, first.defender)[1], agents_fingerprint(first.defender))
    matrices: dict[str, Any] = {}
    same, notes, pictures = {}, {}, []
    for uri in config.scenes:
        found = measure_transfer(
            uri, config, homes, guard, attacks, folder.path / "stages", progress=progress
        )
        clock.save()
        matrices[uri] = as_plain(tabulate_transfer(found, attacks, config))
        same[uri] = [attack for attack in attacks if alike(found, attack, config)]
        notes[uri] = {name: scene_notes(there.bank, on_models(config, name)) for name, there in found.items()}
        for budget, matrix in matrices[uri].items():
            picture = matrix_picture(matrix, f"{uri}, {budget} attack actions")
            pictures += save_picture(picture, folder.path / f"transfer-{_file_name(uri)}-{budget}")
    result = _result("evaluate --transfer", config, clock)
    result |= {"results": {}, "transfer": matrices, "same_prompts_everywhere": same}
    result["config"] |= {
        "models": list(models),
        "agents": {"attackers": [home.agents for home in homes], "defender": guard.agents},
        "scene_sets": notes,
    }
    folder.write("transfer", as_plain(result), _transfer_lines(matrices))
    return "\n".join([*_transfer_text(matrices, same), "", *_where(folder, "transfer", pictures)])


def _homes(models: Sequence[str], players: Sequence[Contestant]) -> list[Home]:
    """Say who attacks where."""
    there = list(players) if len(players) == len(models) else [players[0]] * len(models)
    return [
        Home(
            name,
            policies(one.attacker, one.defender)[0],
            agents_fingerprint(one.attacker),
        )
        for name, one in zip(models, there, strict=True)
    ]


def _result(command: str, config: EvaluationConfig, clock: Clock) -> dict[str, Any]:
    return {
        "command": command,
        "seeds": list(config.seeds),
        "versions": versions(),
        "seconds": round(clock.seconds(), 1),
        "config": asdict(config),
    }


def _file_name(uri: str) -> str:
    """Turn a URI into a name for files."""
    return re.sub(r"[^A-Za-z0-9.=-]+", "_", uri).strip("_")


def _ends(name: str, values: Sequence[float] | None) -> dict[str, Any]:
    low, high = values or ("", "")
    return {f"{name}_low": low, f"{name}_high": high}


def _ratio(entry: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the columns of a recovery, empty where there is none."""
    if entry is None or entry["value"] is None:
        return {"recovery": "", **_ends("recovery", None)}
    return {"recovery": entry["value"], **_ends("recovery", entry["ci"])}


def _curve_lines(points: Mapping[str, Any], curves: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the lines of ``curves.csv``."""
    for uri, harms in curves.items():
        for harm, curve in harms.items():
            for who, line in [("undefended", curve), *curve["lines"].items()]:
                facts = {"scenes": uri, "harm": harm, "line": who}
                for at in curve["at"]:
                    cell = points[uri][str(at)][line["row"] if at else line["zero"]]
                    yield (
                        {**facts, "at": at, "n": cell["n"]}
                        | {"mdsc": cell["mdsc"], **_ends("mdsc", cell["mdsc_ci"])}
                        | {"miou": cell["miou"], **_ends("miou", cell["miou_ci"])}
                        | _ratio(cell.get("recovery"))
                    )
                area = {"mdsc": line["area"], **_ends("mdsc", line["area_ci"])}
                yield {**facts, "at": "area", "n": cell["n"], **area, **_ratio(line.get("recovery"))}


def _transfer_lines(matrices: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the lines of ``transfer.csv``."""
    for uri, budgets in matrices.items():
        for budget, found in budgets.items():
            for attack, matrix in found.items():
                for home, row in matrix.items():
                    for to, cell in row.items():
                        facts = {"scenes": uri, "budget": budget, "attack": attack, "attacked_on": home}
                        drop = {"drop": cell["drop"]["value"], **_ends("drop", cell["drop"]["ci"])}
                        yield {
                            **facts,
                            "decoded_by": to,
                            **drop,
                            **_ratio(cell["recovery"]),
                            "n": cell["drop"]["n"],
                        }


def _curve_text(curves: Mapping[str, Any]) -> Iterator[str]:
    """Write the areas as lines of fixed width."""
    for uri, harms in curves.items():
        for harm, curve in harms.items():
            last, unit = curve["at"][-1], curve["unit"]
            yield from ("", f"{uri}: {TITLES[harm]}, mean Dice over 0 to {last} {unit}")
            for who, line in [("undefended", curve), *curve["lines"].items()]:
                text = f"  {who:18}{percent(line['area']):>6} ({interval(line['area_ci'])})"
                if "recovery" in line:
                    ends = ratio_interval(line["recovery"]) or "too little harm"
                    text += f"   recovery {ratio(line['recovery']['value'])} ({ends})"
                yield text


def _transfer_text(matrices: Mapping[str, Any], same: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Write the matrices as lines of fixed width."""
    for uri, budgets in matrices.items():
        for budget, found in budgets.items():
            for attack, matrix in found.items():
                note = " (the same prompts everywhere)" * (attack in same[uri])
                yield from ("", f"{uri}, {budget} attack actions, {attack} attack{note}")
                for home, row in matrix.items():
                    for to, cell in row.items():
                        drop = f"{percent(cell['drop']['value'])} ({interval(cell['drop']['ci'])})"
                        ends = ratio_interval(cell["recovery"]) or "too little harm"
                        back = f"{ratio(cell['recovery']['value'])} ({ends})"
                        yield f"  on {home}, decoded by {to}: loses {drop}, recovery {back}"


def _where(folder: RunFolder, name: str, pictures: Sequence[Path]) -> Iterator[str]:
    yield f"Numbers:  {folder.path / f'{name}.json'}, {folder.path / f'{name}.csv'}"
    yield from (f"Picture:  {path}" for path in pictures)
