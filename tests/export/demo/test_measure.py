import asyncio

from export.demo.measure import MAX_CONCURRENT_CALLS, Figure, ask_all


def test_goals() -> None:
    assert Figure("x", 0.9, 0.9).reached
    assert not Figure("x", 0.89, 0.9).reached
    assert Figure("x", 7, 8, at_most=True).reached
    assert not Figure("x", 9, 8, at_most=True).reached


async def test_all_are_asked_a_few_at_a_time_and_answers_keep_their_order() -> None:
    in_flight = most = 0
    count: list[int] = []

    async def ask(index: int) -> int:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        # Later ones end first.
        for _ in range(20 - index):
            await asyncio.sleep(0)
        in_flight -= 1
        return index

    assert await ask_all(ask, 20, lambda: count.append(1)) == list(range(20))
    assert len(count) == 20
    assert most == MAX_CONCURRENT_CALLS
