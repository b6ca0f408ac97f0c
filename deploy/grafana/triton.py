"""The dashboard of Tritons, by their own metrics."""

from grafana_foundation_sdk.models import units

from deploy.grafana.board import ORANGE, RED, Board, Levels, Query
from deploy.grafana.promql import Series

_HOST = Series('namespace=~"$namespace",job="$job",instance=~"$instance"')
_AT = Series(f'{_HOST.matchers},model=~"$model"')
_REQUESTS = "nv_inference_request_success"


def triton() -> Board:
    board = (
        Board(
            "visiongate-triton",
            "Visiongate: Triton",
            "Does Triton answer, how long do requests wait, how long do models take.",
        )
        .variable("namespace", "Namespace", f"label_values({_REQUESTS}, namespace)")
        .variable(
            "job",
            "Job",
            f'label_values({_REQUESTS}{{namespace=~"$namespace"}}, job)',
            current="visiongate-triton",
        )
        .variable(
            "instance",
            "Triton",
            f'label_values({_REQUESTS}{{namespace=~"$namespace",job="$job"}}, instance)',
        )
        .variable("model", "Model", f'label_values({_REQUESTS}{{namespace=~"$namespace",job="$job"}}, model)')
        .mark_alerts('ALERTS{alertname=~"VisiongateTriton.+",alertstate="firing",namespace=~"$namespace"}')
    )
    for part in (_first_look, _requests, _times, _host):
        part(board)
    return board


def _seconds(part: str, by: str = "") -> str:
    """Mean seconds of a part of a request."""
    return f"{_AT.rate(f'nv_inference_{part}_duration_us', by)} / {_AT.rate(_REQUESTS, by)} / 1e6"


_FAILED = _AT.rate("nv_inference_request_failure", "", 'reason!="CANCELED"')


def _first_look(board: Board) -> None:
    (
        board.number(
            "Tritons",
            "Those that answer Prometheus, of those that it knows.",
            Query(f"sum({_HOST.of('up')})", "up"),
            Query(f"count({_HOST.of('up')})", "of"),
            width=4,
        )
        .number(
            "Requests",
            "Answered each second.",
            Query(_AT.rate(_REQUESTS), "requests"),
            unit=units.RequestsPerSecond,
            width=4,
        )
        .number(
            "Failures",
            "Share of requests, without those that callers cancelled: VisiongateTritonFailures from 1 %.",
            Query(f"{_FAILED} / ({_AT.rate(_REQUESTS)} + {_FAILED})", "failed"),
            unit=units.PercentUnit,
            levels=Levels(steps=((0.001, ORANGE), (0.01, RED))),
            width=4,
        )
        .number(
            "Mean wait in the queue",
            "VisiongateTritonQueues from 1 s, by model.",
            Query(_seconds("queue"), "queue"),
            unit=units.Seconds,
            levels=Levels(steps=((0.2, ORANGE), (1, RED))),
            width=4,
        )
        .number(
            "Requests that wait",
            "Now, of all models. Many for long while none is answered: VisiongateTritonStuck.",
            Query(f"sum({_AT.of('nv_inference_pending_request_count')})", "waiting"),
            width=4,
        )
        .number(
            "Mean time in models",
            "Of one request, on GPU or CPU.",
            Query(_seconds("compute_infer"), "compute"),
            unit=units.Seconds,
            width=4,
        )
    )


def _requests(board: Board) -> None:
    (
        board.row("Requests")
        .graph(
            "Requests by model",
            "Answered each second.",
            Query(_AT.rate(_REQUESTS, "model"), "{{model}}"),
            unit=units.RequestsPerSecond,
            is_stacked=True,
        )
        .graph(
            "Requests by Triton",
            "Balanced where the bands are equally high.",
            Query(_AT.rate(_REQUESTS, "instance"), "{{instance}}"),
            unit=units.RequestsPerSecond,
            is_stacked=True,
        )
        .graph(
            "Failures by reason",
            "BACKEND, OTHER: see Triton's log, GPU memory first. REJECTED: the queue was full. "
            "CANCELED: callers "
            "hung up, or their deadline was over. VisiongateTritonFailures.",
            Query(_AT.rate("nv_inference_request_failure", "model, reason"), "{{model}}: {{reason}}"),
            unit=units.RequestsPerSecond,
        )
        .graph(
            "Requests that wait, by model",
            "Rising without an end: more Tritons are needed. Constant while nothing is answered: "
            "VisiongateTritonStuck.",
            Query(f"sum by (model) ({_AT.of('nv_inference_pending_request_count')})", "{{model}}"),
        )
        .graph(
            "Items of an execution",
            "Mean of what Triton joins to one batch. 1 while requests wait: see dynamic_batching in "
            "config.pbtxt.",
            Query(
                f"{_AT.rate('nv_inference_count', 'model')} / {_AT.rate('nv_inference_exec_count', 'model')}",
                "{{model}}",
            ),
        )
        .graph(
            "Items each second",
            "Images, texts or prompts that models worked on.",
            Query(_AT.rate("nv_inference_count", "model"), "{{model}}"),
            unit=units.CountsPerSecond,
            is_stacked=True,
        )
    )


def _times(board: Board) -> None:
    (
        board.row("Times")
        .graph(
            "Wait in the queue, by model",
            "Mean: VisiongateTritonQueues from 1 s. What scales Tritons in the chart looks at this.",
            Query(_seconds("queue", "model"), "{{model}}"),
            unit=units.Seconds,
        )
        .graph(
            "Time in the model, by model",
            "Mean of a request. Grows with its batch.",
            Query(_seconds("compute_infer", "model"), "{{model}}"),
            unit=units.Seconds,
        )
        .graph(
            "Where the time goes",
            "Mean seconds of a request by part. input and output are copies of tensors.",
            *(
                Query(_seconds(part), part.removeprefix("compute_"))
                for part in ("queue", "compute_input", "compute_infer", "compute_output")
            ),
            unit=units.Seconds,
            is_stacked=True,
        )
        .graph(
            "Whole time of requests, by model",
            "Mean, as Triton sees it.",
            Query(_seconds("request", "model"), "{{model}}"),
            unit=units.Seconds,
        )
        .graph(
            "Executions each second, by model",
            "How often a model runs.",
            Query(_AT.rate("nv_inference_exec_count", "model"), "{{model}}"),
            unit=units.CountsPerSecond,
        )
        .graph(
            "Time in models by Triton",
            "Mean of a request. A slow one has a slow GPU, or shares it.",
            Query(_seconds("compute_infer", "instance"), "{{instance}}"),
            unit=units.Seconds,
        )
    )


def _host(board: Board) -> None:
    (
        board.row("Host")
        .graph(
            "Processors of the host",
            "Share of all cores that is busy, other programs included.",
            Query(_HOST.of("nv_cpu_utilization"), "{{instance}}"),
            unit=units.PercentUnit,
            maximum=1,
        )
        .graph(
            "Memory of the host",
            "Share that is taken, other programs included.",
            Query(
                f"{_HOST.of('nv_cpu_memory_used_bytes')} / {_HOST.of('nv_cpu_memory_total_bytes')}",
                "{{instance}}",
            ),
            unit=units.PercentUnit,
            maximum=1,
        )
        .graph(
            "Pinned memory that is taken",
            "Of the pool for copies to GPUs. A full pool makes copies slow.",
            Query(_HOST.of("nv_pinned_memory_pool_used_bytes"), "{{instance}}"),
            unit=units.BytesIEC,
        )
    )
