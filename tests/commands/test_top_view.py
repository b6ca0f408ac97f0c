from gateway.commands.samples import Change, Samples
from gateway.commands.top_view import sections

# Ten seconds apart, as servers of today and of tomorrow have it.
BEFORE = """
visiongate_calls_total{method="/visiongate.v1.GazeService/EstimateGaze",code="OK",caller="x"} 100
visiongate_calls_total{method="/visiongate.v1.GazeService/EstimateGaze",code="OK",caller="y"} 100
visiongate_triton_requests_total{server="10.0.0.1:8001",model="gaze",code="OK"} 10
visiongate_cache_lookups_total{cache="image",result="hit"} 1
"""
AFTER = """
visiongate_build_info{version="1.2.3"} 1
visiongate_ready{grpc_service=""} 1
visiongate_ready{grpc_service="visiongate.v1.GazeService"} 1
visiongate_ready{grpc_service="visiongate.v1.TextService"} 0
visiongate_calls_in_flight 12
visiongate_max_calls_in_flight 64
visiongate_bytes_in_flight 3145728
visiongate_max_bytes_in_flight 2147483648
visiongate_connections 7
visiongate_workers 1
visiongate_workers_wanted 2
visiongate_worker_restarts_total 3
visiongate_calls_total{method="/visiongate.v1.GazeService/EstimateGaze",code="OK",caller="x"} 190
visiongate_calls_total{method="/visiongate.v1.GazeService/EstimateGaze",code="OK",caller="y"} 195
visiongate_calls_total{method="/visiongate.v1.GazeService/EstimateGaze",code="INTERNAL",caller="y"} 14
visiongate_calls_total{method="/visiongate.v1.GazeService/EstimateGaze",code="UNAVAILABLE",caller="y"} 1
visiongate_call_seconds_bucket{method="/visiongate.v1.GazeService/EstimateGaze",le="0.1"} 100
visiongate_call_seconds_bucket{method="/visiongate.v1.GazeService/EstimateGaze",le="2.0"} 200
visiongate_call_seconds_bucket{method="/visiongate.v1.GazeService/EstimateGaze",le="+Inf"} 200
visiongate_refusals_total{reason="slow"} 5
visiongate_triton_up{server="10.0.0.1:8001"} 0
visiongate_triton_up{server="10.0.0.2:8001"} 1
visiongate_triton_requests_total{server="10.0.0.1:8001",model="gaze",code="OK"} 15
visiongate_triton_requests_total{server="10.0.0.1:8001",model="gaze",code="UNAVAILABLE"} 5
visiongate_triton_requests_total{server="10.0.0.2:8001",model="gaze",code="OK"} 20
visiongate_triton_seconds_bucket{model="gaze",le="0.1"} 30
visiongate_triton_seconds_bucket{model="gaze",le="+Inf"} 30
visiongate_triton_retries_total{model="gaze"} 20
visiongate_model_info{family="gaze",variant="resnet34",model="gaze",version="1"} 1
visiongate_cache_lookups_total{cache="image",result="hit"} 2
visiongate_cache_lookups_total{cache="image",result="shared"} 2
visiongate_cache_lookups_total{cache="image",result="miss"} 1
visiongate_cache_bytes{cache="image"} 1536
"""


def shown(before: str, after: str) -> dict[str, list[list[str]]]:
    """The rows by the title of the first column."""
    change = Change(Samples.parse(0, before), Samples.parse(10, after))
    return {section.columns[0]: [list(row) for row in section.rows] for section in sections(change)}


def test_everything_that_a_server_tells() -> None:
    assert shown(BEFORE, AFTER) == {
        "gateway": [
            ["version", "1.2.3"],
            ["state", "ready"],
            ["services ready", "GazeService"],
            ["services not ready", "TextService"],
            ["calls per second", "20.0"],
            ["calls in flight", "12 of 64"],
            ["bytes in flight", "3 MiB of 2.0 GiB"],
            ["connections", "7"],
            ["workers", "1 of 2"],
            ["restarts of workers", "3"],
        ],
        "method": [["GazeService/EstimateGaze", "20.0", "100 ms", "2.0 s", "7 % INTERNAL, <1 % UNAVAILABLE"]],
        "refused for": [["slow", "0.5"]],
        "Triton": [
            ["10.0.0.1:8001", "down", "1.0", "-", "-", "50 % UNAVAILABLE"],
            ["10.0.0.2:8001", "up", "2.0", "-", "-", "-"],
        ],
        "model": [["gaze", "gaze resnet34", "3.0", "50 ms", "99 ms", "17 % UNAVAILABLE", "2.0"]],
        "cache": [["image", "0.4", "75 %", "2 KiB"]],
    }


def test_an_older_server_without_most_metrics() -> None:
    after = 'visiongate_calls_in_flight 1\nvisiongate_triton_requests_total{model="sam",code="OK"} 10\n'
    assert shown("", after) == {
        "gateway": [["calls per second", "0"], ["calls in flight", "1"]],
        "model": [["sam", "-", "1.0", "-", "-", "-", "0"]],
    }


def test_latencies_of_each_server_where_they_are_told() -> None:
    after = AFTER.replace('seconds_bucket{model="gaze"', 'seconds_bucket{server="10.0.0.2:8001",model="gaze"')
    assert shown(BEFORE, after)["Triton"][1][3:5] == ["50 ms", "99 ms"]
    assert shown(BEFORE, after)["model"][0][3:5] == ["50 ms", "99 ms"]
