import numpy as np
import pytest

from visiongate.command_error import CommandError
from visiongate.commands.prompts import read_boxes, read_points, read_prompts


def test_boxes_and_points() -> None:
    assert read_boxes(["1,2,3.5,-4", " 5, 6 ,7,8"]).tolist() == [[1, 2, 3.5, -4], [5, 6, 7, 8]]
    assert read_points("1,2  3 , 4.5").tolist() == [[1, 2], [3, 4.5]]
    assert read_points("").shape == (0, 2)


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5", "a,2,3,4", "", "1 2 3 4", "nan,2,3,4", "1,2,3,inf"])
def test_what_is_no_box(text: str) -> None:
    with pytest.raises(
        CommandError, match=r"is not 4 numbers with commas .* such as 75,275,1725,850$"
    ) as raised:
        read_boxes([text])
    assert repr(text) in str(raised.value)


@pytest.mark.parametrize(("text", "wrong"), [("1", "1"), ("1,2,3", "1,2,3"), ("1,2 3", "3"), ("x,2", "x,2")])
def test_what_is_no_point(text: str, wrong: str) -> None:
    with pytest.raises(CommandError, match=r"is not 2 numbers with commas .* such as 500,375$") as raised:
        read_points(text)
    assert repr(wrong) in str(raised.value)


def test_boxes_alone_or_points_alone() -> None:
    prompts = read_prompts(["1,2,3,4", "5,6,7,8"], [], [])
    assert prompts.boxes is not None
    assert prompts.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert prompts.points is None
    assert prompts.labels is None

    prompts = read_prompts([], ["1,2 3,4", "5,6"], [])
    assert prompts.boxes is None
    assert [points.tolist() for points in prompts.points or ()] == [[[1, 2], [3, 4]], [[5, 6]]]
    assert [labels.tolist() for labels in prompts.labels or ()] == [[1, 1], [1]]


def test_prompts_of_several_parts() -> None:
    """The first of each make one prompt, the second another."""
    prompts = read_prompts(["1,2,3,4", "5,6,7,8"], ["9,9", ""], ["", "10,10 11,11"])
    assert prompts.boxes is not None
    assert np.array_equal(prompts.boxes[1], [5, 6, 7, 8])
    assert [points.tolist() for points in prompts.points or ()] == [[[9, 9]], [[10, 10], [11, 11]]]
    assert [labels.tolist() for labels in prompts.labels or ()] == [[1], [0, 0]]

    prompts = read_prompts([], ["1,1"], ["2,2"])
    assert [points.tolist() for points in prompts.points or ()] == [[[1, 1], [2, 2]]]
    assert [labels.tolist() for labels in prompts.labels or ()] == [[1, 0]]


def test_parts_that_do_not_pair_up() -> None:
    with pytest.raises(CommandError, match=r"^1 --box and 2 --point do not pair up: the first of each"):
        read_prompts(["1,2,3,4"], ["1,1", "2,2"], [])
    with pytest.raises(CommandError, match=r"^2 --box and 1 --background do not pair up"):
        read_prompts(["1,2,3,4"] * 2, [], ["1,1"])
    with pytest.raises(CommandError, match="--background says what is not the object"):
        read_prompts([], [], ["1,1"])
