"""One job at a time: whose turn it is when several people use the web demo."""

import asyncio
import threading

import pytest

from ppd_agents.demo.turns import BusyError, Turns


def test_nobody_waits_for_more_than_a_step_of_each_other():
    turns, order = Turns("test"), []

    async def user(name, jobs):
        for _ in range(jobs):
            await turns.take(order.append, name)

    async def visit():
        await asyncio.gather(user("long", 6), user("short", 2))

    asyncio.run(visit())
    assert order[:4] == ["long", "short", "long", "short"]


def test_the_queue_has_an_end():
    turns, gate = Turns("test", longest=2), threading.Event()

    async def visit():
        waiting = [asyncio.create_task(turns.take(gate.wait, 20)) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(BusyError, match="try again"):
            await turns.take(gate.wait)
        gate.set()
        await asyncio.gather(*waiting)
        assert await turns.take(lambda: "free again") == "free again"

    asyncio.run(visit())
