import pytest

from gateway.commands.gpus import Gpus, asked_for
from visiongate.command_error import CommandError


def test_without_options_models_run_on_the_cpu() -> None:
    assert asked_for() is None


def test_what_is_asked_for() -> None:
    assert asked_for(gpu=True) == Gpus()
    assert asked_for(gpus="3,0") == Gpus((0, 3))
    everything = asked_for(gpu=True, gpus="1", gpu_instances=2, gpu_memory_limit="1.5 GiB")
    assert everything == Gpus((1,), 2, 3 << 29)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"gpu_instances": 2}, "--gpu-instances is for GPUs: give --gpu too"),
        ({"gpu_memory_limit": "8GiB"}, "--gpu-memory-limit is for GPUs"),
        ({"gpus": "all"}, "--gpus is 'all': give numbers"),
        ({"gpus": ""}, "--gpus is ''"),
        ({"gpus": "0,,1"}, "--gpus is '0,,1'"),
        ({"gpus": "-1"}, "--gpus is '-1'"),
        ({"gpu": True, "gpu_memory_limit": "much"}, "--gpu-memory-limit is 'much': give a size such as 8GiB"),
        ({"gpu": True, "gpu_memory_limit": "0"}, "--gpu-memory-limit is '0'"),
        ({"gpu": True, "gpu_memory_limit": "-8GiB"}, "--gpu-memory-limit is '-8GiB'"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(options: dict[str, object], says: str) -> None:
    with pytest.raises(CommandError, match=says):
        asked_for(**options)  # type: ignore[arg-type]
