"""The lower parts of the gateways' dashboard, which say why: room, Tritons, caches, the edge, processes."""

from grafana_foundation_sdk.models import units

from deploy.grafana.board import Board, Query
from deploy.grafana.promql import Series

AT = Series('namespace=~"$namespace",job="$job",instance=~"$instance"')
OK, NOT_OK = 'code="OK"', 'code!="OK"'
_EDGE = Series('namespace=~"$namespace",job="visiongate-envoy"')


def room(board: Board) -> None:
    (
        board.row("Room")
        .graph(
            "Calls in flight, of what is allowed",
            "Share of max_concurrent_calls by gateway: VisiongateNearlyFull from 80 %. At 100 % calls "
            "are refused.",
            Query(
                f"{AT.of('visiongate_calls_in_flight')} / {AT.of('visiongate_max_calls_in_flight')}",
                "{{instance}}",
            ),
            unit=units.PercentUnit,
            maximum=1,
        )
        .graph(
            "Bytes in flight, of what is allowed",
            "Share of max_bytes_in_flight by gateway: VisiongateNearlyFull from 80 %. At 100 % calls wait.",
            Query(
                f"{AT.of('visiongate_bytes_in_flight')} / {AT.of('visiongate_max_bytes_in_flight')}",
                "{{instance}}",
            ),
            unit=units.PercentUnit,
            maximum=1,
        )
        .graph(
            "Refusals by reason",
            "calls, bytes, slow: VisiongateFull, add replicas. caller: one had its share, "
            "VisiongateCallerOverShare. "
            "key_…: VisiongateKeysTried.",
            Query(AT.rate("visiongate_refusals_total", "reason"), "{{reason}}"),
            unit=units.RequestsPerSecond,
        )
        .graph(
            "Bytes of requests over HTTP",
            "What bodies hold before the gateway has them; half of max_bytes_in_flight at most.",
            Query(AT.of("visiongate_http_bytes"), "{{instance}}"),
            unit=units.BytesIEC,
        )
        .graph(
            "Connections",
            "Unlike gateways: callers keep to one. max_connection_age_s lets them connect anew.",
            Query(AT.of("visiongate_connections"), "{{instance}}"),
        )
        .graph(
            "Connections that were closed",
            "answer: callers did not take theirs. descriptors: few were left. peer: one address had "
            "too many.",
            Query(AT.rate("visiongate_connections_closed_total", "reason"), "{{reason}}"),
            unit=units.CountsPerSecond,
        )
    )


def tritons(board: Board) -> None:
    (
        board.row("Tritons, as the gateways see them")
        .graph(
            "Tritons that answer",
            "Gateways that reach each of them. 0: it is down. Fewer than all: the network. "
            "VisiongateTritonDown.",
            Query(f"sum by (server) ({AT.of('visiongate_triton_up')})", "{{server}}"),
        )
        .graph(
            "Models that are ready",
            "Tritons that have each model ready, at the gateway that sees fewest: "
            "VisiongateTritonLacksModel.",
            Query(
                f"min by (model) (sum by (instance, model) ({AT.of('visiongate_triton_model_ready')}))",
                "{{model}}",
            ),
        )
        .graph(
            "Requests in flight",
            "Balanced where lines lie together. One that keeps all its requests does not answer.",
            Query(f"sum by (server) ({AT.of('visiongate_triton_requests_in_flight')})", "{{server}}"),
        )
        .graph(
            "Requests by Triton",
            "Attempts sent to each.",
            Query(AT.rate("visiongate_triton_requests_total", "server"), "{{server}}"),
            unit=units.RequestsPerSecond,
            is_stacked=True,
        )
        .graph(
            "Failed requests by code",
            "Of Triton and model. The gateway's log has Triton's words as `cause`.",
            Query(
                AT.rate("visiongate_triton_requests_total", "model, code", NOT_OK) + " > 0",
                "{{model}}: {{code}}",
            ),
            unit=units.RequestsPerSecond,
        )
        .graph(
            "Requests that were sent again",
            "Because a Triton was away: VisiongateTritonUnsteady from 5 % of all.",
            Query(AT.rate("visiongate_triton_retries_total", "model"), "{{model}}"),
            unit=units.RequestsPerSecond,
        )
        .graph(
            "99 % of requests take less, by model",
            "Triton's queue and the way there and back included.",
            Query(AT.quantile(0.99, "visiongate_triton_seconds", "model", OK), "{{model}}"),
            unit=units.Seconds,
        )
        .graph(
            "Mean seconds of requests by Triton",
            "One that is slower than others of the same models has less GPU, or more to do.",
            Query(
                AT.mean("visiongate_triton_seconds", "server"),
                "{{server}}",
            ),
            unit=units.Seconds,
        )
        .graph(
            "Items of a request",
            "Mean, by model, before Triton joins requests.",
            Query(
                AT.mean("visiongate_batch_size", "model"),
                "{{model}}",
            ),
        )
    )


def caches(board: Board) -> None:
    (
        board.row("Images and caches")
        .graph(
            "Images by how they came",
            "Many by image_id are cheap. Encoded ones cost their decoding.",
            Query(AT.rate("visiongate_images_total", "source"), "{{source}}"),
            unit=units.CountsPerSecond,
        )
        .graph(
            "Lookups that found something",
            "Share by cache; shared: another call computed it already. Little with a full cache: raise "
            "its bytes.",
            Query(
                AT.share("visiongate_cache_lookups_total", 'result!="miss"', "cache"),
                "{{cache}}",
            ),
            unit=units.PercentUnit,
            maximum=1,
        )
        .graph(
            "Caches, of what they may hold",
            "Share by cache. Full is good where lookups find something.",
            Query(
                f"sum by (cache) ({AT.of('visiongate_cache_bytes')})"
                f" / sum by (cache) ({AT.of('visiongate_cache_max_bytes')})",
                "{{cache}}",
            ),
            unit=units.PercentUnit,
            maximum=1,
        )
    )


def edge(board: Board) -> None:
    (
        board.row("Edge: Envoy")
        .graph(
            "Gateways that Envoy left out",
            "Of those that it knows: VisiongateEdgeHostOut, and VisiongateEdgeNoHost when none is left. "
            "VisiongateEdgeGone where there is no line.",
            Query(
                f"max by (envoy_cluster_name) ({_EDGE.of('envoy_cluster_membership_total')}"
                f" - {_EDGE.of('envoy_cluster_membership_healthy')})",
                "{{envoy_cluster_name}}",
            ),
        )
        .graph(
            "Requests of Envoy",
            "What it sends on.",
            Query(
                _EDGE.rate("envoy_cluster_upstream_rq_total", "envoy_cluster_name"), "{{envoy_cluster_name}}"
            ),
            unit=units.RequestsPerSecond,
        )
        .graph(
            "Requests that Envoy sent again",
            "VisiongateEdgeRetries from 5 % of all, or once the budget is used up.",
            Query(
                _EDGE.rate("envoy_cluster_upstream_rq_retry", "envoy_cluster_name"),
                "{{envoy_cluster_name}}: again",
            ),
            Query(
                _EDGE.rate("envoy_cluster_upstream_rq_retry_overflow", "envoy_cluster_name"),
                "{{envoy_cluster_name}}: no budget",
            ),
            unit=units.RequestsPerSecond,
        )
    )


def process(board: Board) -> None:
    (
        board.row("Processes, files, versions")
        .graph(
            "Processor time",
            "Cores that a gateway's processes use, all of them together.",
            Query(
                AT.rate("process_cpu_seconds_total", "instance"),
                "{{instance}}",
            ),
        )
        .graph(
            "Memory",
            "Resident, all processes together. At most twice max_bytes_in_flight, caches and 150 MB "
            "for each.",
            Query(f"sum by (instance) ({AT.of('process_resident_memory_bytes')})", "{{instance}}"),
            unit=units.BytesIEC,
        )
        .graph(
            "Open files, of what is allowed",
            "Of the process that has most: VisiongateNearlyFull from 80 %. Connections are files, too.",
            Query(
                f"max by (instance) ({AT.of('process_open_fds')} / {AT.of('process_max_fds')})",
                "{{instance}}",
            ),
            unit=units.PercentUnit,
            maximum=1,
        )
        .graph(
            "Tasks of asyncio",
            "Far more than calls in flight, and ever more, is a leak.",
            Query(AT.of("visiongate_tasks"), "{{instance}}"),
        )
        .graph(
            "Worker processes that lack",
            "Of those that should live, with several processes: VisiongateWorkersDie. The log has how "
            "each ended.",
            Query(f"{AT.of('visiongate_workers_wanted')} - {AT.of('visiongate_workers')}", "{{instance}}"),
            Query(
                AT.increase("visiongate_worker_restarts_total", "reason"),
                "replaced: {{reason}}",
            ),
        )
        .graph(
            "Keys, certificates and models taken over",
            "failed: VisiongateReloadFailed, the old ones stay in use.",
            Query(
                AT.increase("visiongate_reloads_total", "what, result"),
                "{{what}}: {{result}}",
            ),
        )
        .graph(
            "Certificates' time left",
            "VisiongateCertificateExpires from 14 days.",
            Query(f"{AT.of('visiongate_certificate_expiry_seconds')} - time()", "{{instance}} {{file}}"),
            unit=units.Seconds,
        )
        .graph(
            "Gateways by version",
            "More than one line: an update is under way, or stuck.",
            Query(f"count by (version) ({AT.of('visiongate_build_info')})", "{{version}}"),
        )
        .graph(
            "Gateways by model and export",
            "More than one export of a variant: weights are being rolled out, or a Triton has old ones.",
            Query(
                f"count by (family, variant, export) ({AT.of('visiongate_model_info')})",
                "{{family}} {{variant}} {{export}}",
            ),
        )
    )
