"""Plays all pieces of a table, here or on a Ray cluster, and keeps each as soon as it is finished."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ppd_agents.dqn.agent import Agent
from ppd_agents.evaluation.paper.bench import Bench, Job
from ppd_agents.evaluation.paper.config import VERSION, TableConfig
from ppd_agents.evaluation.paper.sets import Part, TableSet
from ppd_agents.evaluation.stages import ArrayStore, fingerprint
from ppd_agents.pipeline import agents_fingerprint
from ppd_agents.ray_workers import RayWorkers
from ppd_env.errors import SceneError

_INDICES, _PROBLEMS = "indices", "problems"
_NOT_ROWS = (_INDICES, _PROBLEMS)


@dataclass(frozen=True)
class Cluster:
    """How a table is spread.

    Args:
        workers: Ray workers; where None, one for each GPU, or machine on the CPU.
    """

    workers: int | None = None


@dataclass(frozen=True, eq=False)
class Played:
    """Everything played on one set.

    Args:
        scores: Row -> (repetitions, S, measures) float64; one repetition where no reference takes part.
        groups: S groups, what each target is not independent of.
        left_out: Targets that could not be read, each a sentence.
        notes: What identifies scenes, targets and references.
    """

    scores: Mapping[str, np.ndarray]
    groups: Sequence[str]
    left_out: Sequence[str]
    notes: Mapping[str, Any]


@dataclass(frozen=True)
class _Piece:
    """A piece to be: ``repetition`` of ``task`` on part ``number`` of a set; ``agent``: of the task alone."""

    place: TableSet
    number: int
    task: str
    repetition: int
    agent: str = ""

    @property
    def name(self) -> str:
        """What it is kept as; with a fingerprint, since URIs may look alike as file names."""
        told = f"{self.task.partition('?')[0]}.reference={self.repetition}.part={self.number}"
        return f"{told}.{fingerprint([self.place.name, self.task, self.agent])}"


def play_table(
    config: TableConfig,
    sets: Sequence[TableSet],
    attacker: Agent,
    defender: Agent,
    folder: Path | None,
    *,
    cluster: Cluster | None = None,
    progress: bool = True,
) -> tuple[dict[str, Played], dict[str, str]]:
    """Play everything that is not kept yet.

    Args:
        config: What is measured.
        sets: What it is measured on.
        attacker: Trained attacker.
        defender: Trained defender.
        folder: Keeps finished pieces, from which an interrupted table goes on; None keeps nothing.
        cluster: Spread the pieces over a Ray cluster; None: play them here.
        progress: Show a progress bar.

    Returns:
        Everything by the name of its set, and the signatures of both models.

    Raises:
        PPDError: A model or a kept piece cannot be used, or no scene of a set can be read.
    """
    with _benches(config, attacker, defender, cluster) as benches:
        own = {name: fact for name, fact in benches.facts.items() if name in config.tasks()}
        shared = {name: fact for name, fact in benches.facts.items() if name not in own}
        decisive = [VERSION, config.decisive(), shared, agents_fingerprint(attacker, defender)]
        stores = {one.name: _store(folder, [*decisive, one.notes()]) for one in sets}
        done: dict[_Piece, Mapping[str, np.ndarray]] = {}
        todo = []
        for piece in _pieces(config, sets, own):
            kept = stores[piece.place.name].read(piece.name)
            if kept is None:
                todo.append(piece)
            else:
                done[piece] = kept
        total = len(done) + len(todo)
        bar = tqdm(total=total, initial=len(done), desc="table", unit="piece", disable=not progress)
        with bar:
            for piece, arrays in _play(benches, todo):
                stores[piece.place.name].write(piece.name, arrays)
                done[piece] = arrays
                bar.set_postfix_str(f"{piece.place.name}, {piece.task}")
                bar.update()
    return {one.name: _gathered(one, done) for one in sets}, benches.facts


def _store(folder: Path | None, decisive: Sequence[Any]) -> ArrayStore:
    key = fingerprint(decisive)
    return ArrayStore(None if folder is None else folder / key, key)


def _pieces(config: TableConfig, sets: Sequence[TableSet], agents: Mapping[str, str]) -> Iterator[_Piece]:
    """List all pieces, those of one part after one another, so that it is read and encoded once."""
    for one in sets:
        for number in range(one.parts):
            for task in config.tasks():
                for repetition in range(1 if task == "ideal" else one.repetitions):
                    yield _Piece(one, number, task, repetition, agents.get(task, ""))


class _Here:
    """One bench in this process."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.facts = bench.facts()

    def play(self, jobs: Iterable[Job]) -> Iterator[tuple[str, Mapping[str, np.ndarray]]]:
        for job in jobs:
            yield self._bench.play(job)


class _Spread:
    """A bench on every worker of a Ray cluster."""

    def __init__(self, workers: RayWorkers) -> None:
        self._workers = workers
        self.facts: dict[str, str] = workers.agree("facts")

    def play(self, jobs: Iterable[Job]) -> Iterator[tuple[str, Mapping[str, np.ndarray]]]:
        return self._workers.map("play", ((job,) for job in jobs))


@contextmanager
def _benches(
    config: TableConfig, attacker: Agent, defender: Agent, cluster: Cluster | None
) -> Iterator[_Here | _Spread]:
    """Set benches up here or on the cluster; workers end with the block."""
    make = partial(Bench, config, attacker, defender)
    if cluster is None:
        yield _Here(make())
        return
    with RayWorkers(make, config.device, cluster.workers) as workers:
        yield _Spread(workers)


def _play(benches: _Here | _Spread, todo: Sequence[_Piece]) -> Iterator[tuple[_Piece, dict[str, np.ndarray]]]:
    """Play pieces in any order; a part of which nothing can be read is finished without."""
    under_way: dict[str, tuple[_Piece, Part]] = {}
    unreadable: list[tuple[_Piece, Part]] = []

    def jobs() -> Iterator[Job]:
        last: tuple[TableSet, int, Part] | None = None
        for piece in todo:
            if last is None or last[:2] != (piece.place, piece.number):
                last = piece.place, piece.number, piece.place.read(piece.number)
            part = last[2]
            if not part.indices:
                unreadable.append((piece, part))
                continue
            under_way[piece.name] = piece, part
            yield _job(piece, part)

    for name, scores in benches.play(jobs()):
        piece, part = under_way.pop(name)
        yield piece, {**scores, **_facts(part)}
    for piece, part in unreadable:
        yield piece, _facts(part)


def _facts(part: Part) -> dict[str, np.ndarray]:
    return {_INDICES: np.array(part.indices, np.int64), _PROBLEMS: np.array(part.problems, np.str_)}


def _job(piece: _Piece, part: Part) -> Job:
    """Put together what a piece needs: its targets, and the references they get."""
    place = piece.place
    wanted = [] if piece.task == "ideal" else [place.reference(i, piece.repetition) for i in part.indices]
    distinct = tuple(dict.fromkeys(wanted))
    return Job(
        piece.name,
        piece.task,
        piece.repetition,
        part.indices,
        part.scenes,
        place.held(distinct, tuple(place.source[index] for index in distinct)),
        tuple(f"{place.source.signature} {place.uri} {index}" for index in distinct),
        tuple(distinct.index(index) for index in wanted),
    )


def _gathered(place: TableSet, done: Mapping[_Piece, Mapping[str, np.ndarray]]) -> Played:
    """Put the pieces of one set together, part after part and repetition after repetition."""
    pieces = {piece: arrays for piece, arrays in done.items() if piece.place is place}
    order = sorted(pieces, key=lambda piece: (piece.repetition, piece.number))
    rows: dict[str, dict[int, list[np.ndarray]]] = {}
    indices: dict[int, np.ndarray] = {}
    problems: dict[int, list[str]] = {}
    for piece in order:
        arrays = pieces[piece]
        indices[piece.number] = arrays[_INDICES]
        problems[piece.number] = arrays[_PROBLEMS].tolist()
        for row in (name for name in arrays if name not in _NOT_ROWS):
            rows.setdefault(row, {}).setdefault(piece.repetition, []).append(arrays[row])
    left_out = [problem for number in sorted(problems) for problem in problems[number]]
    played = [int(index) for number in sorted(indices) for index in indices[number]]
    if not played:
        raise SceneError(place.uri, f"no target can be used: {'; '.join(left_out)}")
    scores = {
        row: np.stack([np.concatenate(parts) for parts in found.values()]) for row, found in rows.items()
    }
    return Played(scores, [place.groups[index] for index in played], left_out, place.notes())
