"""Lists some of whose items cannot be used: what becomes of the others."""

import asyncio

import pytest

from gateway.errors import InputError
from gateway.pipelines.items import attempt, refuse_errors, work_on_each


async def half(number: int) -> float:
    await asyncio.sleep(0)
    if number < 0:
        raise InputError(f"is {number}")
    return number / 2


def test_an_attempt_returns_the_error() -> None:
    def fail(item: str) -> str:
        raise InputError(f"{item} is wrong")

    error = attempt(fail, "it")
    assert isinstance(error, InputError)
    assert str(error) == "it is wrong"
    assert attempt(str.upper, "it") == "IT"
    with pytest.raises(ValueError, match="unexpected"):
        attempt(lambda item: (_ for _ in ()).throw(ValueError("unexpected")), "it")


async def test_an_item_that_cannot_be_used_becomes_its_error() -> None:
    earlier = InputError("is empty")
    numbers: list[int | InputError] = [1, -2, earlier, 4]
    results = await work_on_each(half, numbers, strict=False)
    assert [results[0], results[3]] == [0.5, 2.0]
    assert str(results[1]) == "is -2"
    assert results[2] is earlier


async def test_strict_work_ends_with_the_first_error_and_its_place() -> None:
    with pytest.raises(InputError, match="is -2") as caught:
        await work_on_each(half, [1, 3, -2], strict=True)
    assert caught.value.index == 2


async def test_strict_work_does_not_begin_with_an_error_among_its_items() -> None:
    begun: list[int] = []

    async def begin(number: int) -> None:
        begun.append(number)

    numbers: list[int | InputError] = [1, InputError("is empty")]
    with pytest.raises(InputError, match="is empty") as caught:
        await work_on_each(begin, numbers, strict=True)
    assert (caught.value.index, begun) == (1, [])


@pytest.mark.parametrize("strict", [False, True])
async def test_an_unexpected_error_ends_the_work(strict: bool) -> None:
    async def fail(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ValueError, match="1"):
        await work_on_each(fail, [1, 2], strict=strict)


def test_the_first_of_the_errors_is_refused() -> None:
    refuse_errors(["a", 3])
    with pytest.raises(InputError, match="second") as caught:
        refuse_errors(["a", InputError("second"), InputError("third")])
    assert caught.value.index == 1
