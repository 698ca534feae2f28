"""Memory that requests share: first come, first served, never more than there is, and nothing is forgotten."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.web.memory import MOST_WAITING, Memory
from bentos.web.responses import ApiError


def test_who_does_not_fit_waits_for_its_turn() -> None:
    async def run() -> list[str]:
        memory, order = Memory(100), []

        async def hold(name: str, num_bytes: int) -> None:
            async with memory.reserved(num_bytes):
                order.append(name)
                await asyncio.sleep(0.01)

        await asyncio.gather(hold("first", 80), hold("large", 60), hold("small", 10))
        assert memory.free == 100
        return order

    assert asyncio.run(run()) == ["first", "large", "small"]  # the small one does not pass the large one


def test_who_waits_too_long_is_told_when_to_come_again() -> None:
    async def run() -> None:
        memory = Memory(100)
        async with memory.reserved(80):
            with pytest.raises(ApiError) as caught:
                await memory.reserve(30, seconds=0.01)
            assert (caught.value.status, caught.value.headers) == (503, {"retry-after": "2"})
            assert await memory.reserve(20, seconds=0.01) == 20  # nobody waits behind one that has gone
            memory.release(20)
        assert memory.free == 100

    asyncio.run(run())


def test_too_many_who_wait_are_sent_away_at_once() -> None:
    async def run() -> None:
        memory = Memory(100)
        async with memory.reserved(100):
            waiting = [asyncio.create_task(memory.reserve(1, seconds=5)) for _ in range(MOST_WAITING)]
            await asyncio.sleep(0)
            with pytest.raises(ApiError) as caught:
                await memory.reserve(1, seconds=5)
            assert caught.value.status == 503
        for each in waiting:
            memory.release(await each)
        assert memory.free == 100

    asyncio.run(run())


@given(st.lists(st.tuples(st.integers(0, 120), st.floats(0, 0.004), st.booleans()), max_size=30))
def test_never_more_is_taken_than_there_is_and_all_comes_back(jobs: list[tuple[int, float, bool]]) -> None:
    async def run() -> None:
        memory = Memory(100)

        async def job(num_bytes: int, seconds: float) -> None:
            taken = await memory.reserve(num_bytes, seconds=0.005)
            try:
                assert 0 <= memory.free <= 100 - taken
                await asyncio.sleep(seconds)
            finally:
                memory.release(taken)

        tasks = [asyncio.create_task(job(num_bytes, seconds)) for num_bytes, seconds, _ in jobs]
        await asyncio.sleep(0.002)
        for task, (_, _, is_cancelled) in zip(tasks, jobs, strict=True):
            if is_cancelled:  # its client has gone
                task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError, ApiError):
                await task
        assert memory.free == 100

    asyncio.run(run())
