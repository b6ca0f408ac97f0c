"""What is known of costs and demand: two TOML files, checked as they are read."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
File = TypeVar("File", bound="Table")


class CapacityError(Exception):
    """A file that says what cannot be, in words for the person who wrote it."""


class Table(BaseModel):
    """A table of TOML. What it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskCost(Table):
    """What one image of a task costs.

    loop_ms, thread_ms: CPU of the gateway in its event loop, of which a process has one, and in its threads.
    thread_ms_per_megapixel: what decoding and masks add, by the size of the image.
    locked_share: how much of the threads' work holds Python's lock: only one of them does it at a time.
    requests: to each model, such as clip_image = 1. Of text recognition: one for each batch of words.
    """

    loop_ms: NotNegative
    thread_ms: NotNegative
    thread_ms_per_megapixel: NotNegative = 0
    locked_share: Annotated[float, Field(ge=0, le=1)] = 0.3
    request_bytes_per_megapixel: NotNegative
    answer_bytes: NotNegative
    requests: dict[str, Positive]

    def threads_s(self, megapixels: float) -> float:
        """Return the seconds of work in threads."""
        return (self.thread_ms + self.thread_ms_per_megapixel * megapixels) / 1e3

    def locked_s(self, megapixels: float) -> float:
        """Return the seconds of work of which a process does one thing at a time."""
        return self.loop_ms / 1e3 + self.locked_share * self.threads_s(megapixels)


class ModelCost(Table):
    """What one request to a model costs.

    batch_ms: milliseconds of a batch of requests on a device, by device and number of requests.
    cores: of processors, on how many a batch works at a time.
    triton_ms: CPU of Triton's own for each request: receiving, queueing, sending.
    tensor_bytes: between gateway and Triton, both ways together.
    """

    batch_ms: dict[str, dict[int, Positive]]
    max_batch: int = Field(1, ge=1)
    cores: int = Field(1, ge=1)
    triton_ms: NotNegative = 0
    tensor_bytes: NotNegative

    def batch_s(self, device: str) -> list[tuple[int, float]]:
        """Return seconds by batch size, the smallest first."""
        return [(size, ms / 1e3) for size, ms in sorted(self.batch_ms[device].items())]


class Costs(Table):
    """Costs by task and by model. sources: where each device's figures come from."""

    sources: dict[str, str]
    task: dict[str, TaskCost]
    model: dict[str, ModelCost]


class TaskDemand(Table):
    """images_per_s: on average over the day. megapixels: of an image, on average."""

    images_per_s: Positive
    megapixels: Positive = 1.0


class Demand(Table):
    """What is asked for, and of what machines.

    peak_factor: the busiest minute over the average. headroom: how much of a core, GPU or line is planned to
    be used at the peak. availability: the share of time in which there are machines enough for the peak.
    mtbf_h, mttr_h: hours between two failures of a machine, and until it is replaced.
    gateway_processes: the gateway's setting `processes`; each has an event loop and a lock of its own.
    """

    device: str
    peak_factor: Annotated[float, Field(ge=1)] = 3.0
    headroom: Share = 0.6
    availability: Share = 0.999
    mtbf_h: Positive = 720
    mttr_h: Positive = 0.5
    gateway_cores: Annotated[int, Field(ge=1)] = 4
    gateway_processes: Annotated[int, Field(ge=1)] = 1
    gateway_price_per_h: NotNegative = 0
    device_price_per_h: NotNegative = 0
    task: dict[str, TaskDemand]


def read(path: Path, kind: type[File]) -> File:
    """Read a file of costs or of demand. Raise CapacityError with the name of what is wrong."""
    try:
        return kind.model_validate(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CapacityError(f"{path}: {error}") from None
    except ValidationError as error:
        first: Any = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise CapacityError(f"{path}: {name}: {first['msg']}") from None


def check(costs: Costs, demand: Demand) -> None:
    """Raise CapacityError where the demand names what has no costs."""
    for name in demand.task:
        if name not in costs.task:
            raise CapacityError(f"task.{name}: has no costs; there are {', '.join(sorted(costs.task))}")
        for model in costs.task[name].requests:
            if model not in costs.model:
                raise CapacityError(f"task.{name}: needs the model {model}, which has no costs")
            known = costs.model[model].batch_ms
            if demand.device not in known:
                raise CapacityError(
                    f"device: {demand.device!r} has no costs of {model}; there are {', '.join(sorted(known))}"
                )


def to_toml(costs: Costs) -> str:
    """Write costs as `read` takes them."""
    lines = ["[sources]", *(f'{device} = "{words}"' for device, words in costs.sources.items())]
    for name, task in costs.task.items():
        lines += ["", f"[task.{name}]"]
        lines += [f"{key} = {value}" for key, value in task.model_dump(exclude={"requests"}).items()]
        lines += [f"requests = {{ {_pairs(task.requests)} }}"]
    for name, model in costs.model.items():
        lines += ["", f"[model.{name}]"]
        lines += [f"{key} = {value}" for key, value in model.model_dump(exclude={"batch_ms"}).items()]
        lines += [
            f"batch_ms.{device} = {{ {_pairs(by_size)} }}" for device, by_size in model.batch_ms.items()
        ]
    return "\n".join(lines)


def _pairs(values: dict[str, float] | dict[int, float]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in values.items())
