"""Copies of one object on the processors of a Ray cluster, for work that falls into independent jobs.

Without a cluster (``RAY_ADDRESS``, or one that runs on this machine) Ray starts one here. Jobs and results
travel through Ray: the machines share no disk, but each must have this package and the models that URIs name.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from ppd_env.errors import ConfigError, PPDError

JOBS_UNDER_WAY = 2
"""Per worker: one that it does and one that waits, so that it never waits for the next."""

_RESTARTS = 3
"""Times a lost worker is started again, elsewhere if need be, and its jobs with it."""


class RayWorkers:
    """Workers that each hold an object of their own; a context manager that ends them.

    Args:
        make: Makes a worker's object, there; it and every job is pickled.
        device: ``"cuda"``, one worker for each GPU of the cluster, or ``"cpu"``, one for each machine.
        count: Workers; where None, as many as ``device`` says.

    Raises:
        ConfigError: Ray is not installed, the cluster cannot be reached, or it has no such device.
    """

    def __init__(self, make: Callable[[], object], device: str, count: int | None = None) -> None:
        if device not in ("cpu", "cuda"):
            raise ConfigError(
                f"With Ray the device is 'cpu' or 'cuda' (it hands out the GPUs), not {device!r}."
            )
        if count is not None and count < 1:
            raise ConfigError(f"At least one Ray worker is needed, got {count}.")
        self._ray = _import_ray()
        self._started_here = _connect(self._ray)
        try:
            found, threads = self._plan(device, count)
            actor = self._ray.remote(_Worker).options(
                num_cpus=1,
                num_gpus=1 if device == "cuda" else 0,
                scheduling_strategy="SPREAD",
                max_restarts=_RESTARTS,
                max_task_retries=_RESTARTS,
            )
            self._actors = [actor.remote(make, threads) for _ in range(found)]
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Return the number of workers."""
        return len(self._actors)

    def _plan(self, device: str, count: int | None) -> tuple[int, int]:
        """Return the number of workers and the threads of each."""
        there = self._ray.cluster_resources()
        cores, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
        if device == "cuda" and not gpus:
            raise ConfigError("The Ray cluster has no GPU: add a machine with one, or use --device cpu.")
        room = min(cores, gpus) if device == "cuda" else cores
        machines = sum(1 for node in self._ray.nodes() if node["Alive"])
        found = count or min(room, gpus if device == "cuda" else machines)
        if not 1 <= found <= room:
            raise ConfigError(f"The Ray cluster has room for {room} workers on {device}, not for {found}.")
        return found, max(1, cores // found)

    def ask_all(self, method: str) -> list[Any]:
        """Call a method without arguments on every worker's object.

        Returns:
            One answer per worker.
        """
        calls = [actor.call.remote(method, ()) for actor in self._actors]
        return [self._get(call) for call in calls]

    def agree(self, method: str) -> Any:
        """Call a method without arguments on every worker's object, which must all give the same answer.

        Returns:
            The answer.

        Raises:
            PPDError: The answers differ.
        """
        told = self.ask_all(method)
        if any(answer != told[0] for answer in told):
            raise PPDError(
                "The machines of the Ray cluster hold different models or versions of this package: "
                f"{'; '.join(sorted({str(answer) for answer in told}))}. Install the same everywhere."
            )
        return told[0]

    def map(self, method: str, jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Call a method once per job, on whichever worker is free; few jobs are in memory at any time.

        Args:
            method: Of the workers' objects.
            jobs: Its arguments, taken one by one as workers become free.

        Yields:
            The results, in the order in which they come.

        Raises:
            PPDError: A worker raised it, or was lost too often.
        """
        waiting: dict[Any, Any] = {}
        todo = iter(jobs)
        for actor in self._actors * JOBS_UNDER_WAY:
            for job in itertools.islice(todo, 1):
                waiting[actor.call.remote(method, job)] = actor
        while waiting:
            done = self._ray.wait(list(waiting), num_returns=1)[0][0]
            actor = waiting.pop(done)
            result = self._get(done)
            del done  # lets Ray forget the result before the next is asked for
            for job in itertools.islice(todo, 1):
                waiting[actor.call.remote(method, job)] = actor
            yield result

    def _get(self, call: Any) -> Any:
        """Return a call's result; what the worker raised is raised here as it was."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(call)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as error:
            reason = str(error).strip().splitlines()[0]
            raise PPDError(
                f"A Ray worker was lost ({reason}); see Ray's logs, start the same command again."
            ) from error

    def close(self) -> None:
        """End the workers, and the cluster where it was started here."""
        for actor in getattr(self, "_actors", []):
            self._ray.kill(actor)
        if self._started_here:
            self._ray.shutdown()

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Worker:
    """What runs on the cluster: one object, made at the first call.

    Args:
        make: Makes it.
        threads: Of torch on the CPU; Ray's own default is one.
    """

    def __init__(self, make: Callable[[], object], threads: int) -> None:
        self._make, self._threads = make, threads
        self._made: object | None = None

    def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """Call a method of the object; an error of ``make`` is raised here, where the caller can see it."""
        if self._made is None:
            self._made = self._make()
            if "torch" in sys.modules:  # a worker that computes nothing starts faster without
                sys.modules["torch"].set_num_threads(self._threads)
        return getattr(self._made, method)(*arguments)


def _import_ray() -> Any:
    """Import Ray, or say how to install it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone unasked
    try:
        import ray
    except ImportError:
        raise ConfigError("--ray needs the package ray: pip install 'point-prompt-defender[ray]'.") from None
    return ray


def _connect(ray: Any) -> bool:
    """Connect to a cluster or start one; return whether this process has to leave it again."""
    if ray.is_initialized():
        return False
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ConfigError(
            f"The Ray cluster cannot be reached ({str(error).strip().splitlines()[0]}); check RAY_ADDRESS."
        ) from None
    return True
