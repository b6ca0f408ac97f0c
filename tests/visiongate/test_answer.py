"""Answers are the lists and arrays that they look like, and keep what came with them."""

import copy
import io
import pickle
from typing import Any

import grpc
import numpy as np
import pytest

from visiongate import Answer, AnswerInfo, ArrayAnswer, ImageInfo, InvalidArgumentError, Timings

INFO = AnswerInfo("call 1", "vit_b_32", images=(ImageInfo("abc", 4, 2),), timings=Timings(1, 2, 3, 4))
VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def vectors() -> ArrayAnswer:
    return ArrayAnswer(VALUES, INFO)


def test_a_list_with_info() -> None:
    answer = Answer([1, 2], INFO)
    assert answer == [1, 2]
    assert answer[1:] == [2]
    assert answer.info is INFO
    for again in (copy.deepcopy(answer), pickle.loads(pickle.dumps(answer))):
        assert (again, again.info) == (answer, INFO)


def test_an_array_with_info() -> None:
    answer = vectors()
    assert isinstance(answer, np.ndarray)
    assert (answer.dtype, answer.shape) == (np.dtype(np.float32), (2, 3))
    assert answer.info is INFO
    assert answer[0].info is INFO
    for again in (answer.copy(), copy.deepcopy(answer), pickle.loads(pickle.dumps(answer))):
        assert (again == answer).all()
        assert again.info == INFO


def test_what_is_computed_is_a_plain_array() -> None:
    answer = vectors()
    for computed in (
        answer @ answer.T,
        answer * 2,
        answer / np.linalg.norm(answer, axis=1, keepdims=True),
        answer > 1,
        answer.sum(0),
        np.concatenate([answer, answer]),
        np.stack([answer, answer]),
    ):
        assert type(computed) is np.ndarray
    np.testing.assert_array_equal(answer @ answer.T, VALUES @ VALUES.T)
    assert answer.sum() == 15
    assert not isinstance(answer.sum(), np.ndarray)
    assert float(answer[0] @ answer[1]) == VALUES[0] @ VALUES[1]


def test_arrays_are_saved_as_arrays() -> None:
    file = io.BytesIO()
    np.save(file, vectors())
    file.seek(0)
    loaded = np.load(file)
    assert type(loaded) is np.ndarray
    np.testing.assert_array_equal(loaded, VALUES)


def test_the_image_of_an_answer_about_one() -> None:
    assert INFO.image == ImageInfo("abc", 4, 2)
    with pytest.raises(ValueError, match="about 0 images"):
        assert AnswerInfo().image


def test_errors_of_single_items() -> None:
    error = InvalidArgumentError(grpc.StatusCode.INVALID_ARGUMENT, "bad")
    info = AnswerInfo(images=(None,), errors={0: error})
    with pytest.raises(ValueError, match="see `errors`"):
        assert info.image
    answers: list[Any] = [Answer([[]], info), ArrayAnswer(VALUES, info)]
    for answer in answers:
        assert answer.errors == {0: error}
        again = pickle.loads(pickle.dumps(answer))
        assert str(again.errors[0]) == "INVALID_ARGUMENT: bad"
    assert Answer([], AnswerInfo()).errors == vectors().errors == {}
    assert hash(info) == hash(AnswerInfo(images=(None,)))
