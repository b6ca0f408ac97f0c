"""The dashboard of gateways: are they well, whose fault is it, since when."""

from grafana_foundation_sdk.models import units

from deploy.grafana.board import GREEN, ORANGE, RED, Board, Levels, Query
from deploy.grafana.gateway_inside import AT, NOT_OK, OK, caches, edge, process, room, tritons

_CALLS = "visiongate_calls_total"
_FIRING = 'ALERTS{alertname=~"Visiongate.+",alertstate="firing",namespace=~"$namespace"}'
_WHOLE = 'grpc_service=""'


def gateway() -> Board:
    board = (
        Board(
            "visiongate-gateway",
            "Visiongate: gateway",
            "Is it well, whose fault is it, since when. The first rows say that; the parts below say why.",
        )
        .variable("namespace", "Namespace", "label_values(visiongate_build_info, namespace)")
        .variable(
            "job",
            "Job",
            'label_values(visiongate_build_info{namespace=~"$namespace"}, job)',
            current="visiongate",
        )
        .variable(
            "instance",
            "Gateway",
            'label_values(visiongate_build_info{namespace=~"$namespace",job="$job"}, instance)',
        )
        .mark_alerts(_FIRING)
    )
    for part in (_first_look, _calls, room, tritons, caches, _callers, edge, process):
        part(board)
    return board


def _first_look(board: Board) -> None:
    share = Levels(steps=((0.001, ORANGE), (0.01, RED)))
    (
        board.number(
            "Alerts that fire",
            "Of all parts. Their names and times are in the graph below; what to do is in "
            "gateway/README.md, Alerts.",
            Query(f"sum({_FIRING}) or vector(0)", "firing"),
            levels=Levels(steps=((1, RED),)),
        )
        .number(
            "Gateways ready",
            "Those that answer calls, of those that are scraped. Fewer: VisiongateNotReady, VisiongateGone.",
            Query(f"sum({AT.of('visiongate_ready', _WHOLE)})", "ready"),
            Query(f"count({AT.of('up')})", "of"),
            levels=Levels(RED, ((1, GREEN),)),
        )
        .number(
            "Tritons that answer",
            "As the gateways see them. Fewer: VisiongateTritonDown; the part Tritons says which.",
            Query(f"sum(min by (server) ({AT.of('visiongate_triton_up')}))", "up"),
            Query(f"count(count by (server) ({AT.of('visiongate_triton_up')}))", "of"),
            levels=Levels(RED, ((1, GREEN),)),
        )
        .number(
            "Calls",
            "Calls that end each second, good and bad ones.",
            Query(AT.rate(_CALLS), "calls"),
            unit=units.RequestsPerSecond,
        )
        .number(
            "The server's fault",
            "Share of calls that fail by a fault of gateway, Triton or models: VisiongateServerFaults "
            "from 1 %. "
            "The graph Failures by reason says which.",
            Query(AT.share(_CALLS, 'fault="server"'), "server"),
            unit=units.PercentUnit,
            levels=share,
        )
        .number(
            "No room",
            "Share of calls that are refused for lack of room: VisiongateFull from 1 %. See the part Room.",
            Query(AT.share(_CALLS, 'fault="load"'), "load"),
            unit=units.PercentUnit,
            levels=share,
        )
        .number(
            "The callers' fault",
            "Share of calls that fail by their callers' doing: broken images, wrong keys, short deadlines. "
            "Nothing is wrong here; the part Callers says whose they are.",
            Query(AT.share(_CALLS, 'fault="caller"'), "caller"),
            unit=units.PercentUnit,
            levels=Levels(steps=((0.2, ORANGE),)),
        )
        .number(
            "99 % take less than",
            "Of calls that are answered, of all methods: VisiongateSlow is by method.",
            Query(AT.quantile(0.99, "visiongate_call_seconds", "", OK), "p99"),
            unit=units.Seconds,
            levels=Levels(steps=((5, ORANGE),)),
        )
        .graph(
            "Calls by whose fault their end was",
            "Since when: where another colour than that of `none` begins.",
            Query(AT.rate(_CALLS, "fault"), "{{fault}}"),
            unit=units.RequestsPerSecond,
            is_stacked=True,
        )
        .graph(
            "Alerts that fire",
            "Each line is as long as its alert fired. Empty is good.",
            Query(f"count by (alertname) ({_FIRING})", "{{alertname}}"),
        )
        .graph(
            "Services ready",
            "Gateways at which each service is ready. Optional services without models are always 0. "
            "A fall: VisiongateServiceNotReady; the log says which models it lacks.",
            Query(f"sum by (grpc_service) ({AT.of('visiongate_ready')})", "{{grpc_service}}"),
        )
    )


def _calls(board: Board) -> None:
    (
        board.row("Calls")
        .graph(
            "Calls by method",
            "What is asked for.",
            Query(AT.rate(_CALLS, "method"), "{{method}}"),
            unit=units.RequestsPerSecond,
            is_stacked=True,
        )
        .graph(
            "Calls by code",
            "gRPC's status codes. proto/README.md, Errors, says what each means.",
            Query(AT.rate(_CALLS, "code"), "{{code}}"),
            unit=units.RequestsPerSecond,
        )
        .graph(
            "Failures by reason",
            "Of all calls that were not answered. TRITON_…: look at Triton's log, and `cause` in the "
            "gateway's.",
            Query(AT.rate(_CALLS, "fault, code, reason", NOT_OK) + " > 0", "{{fault}}: {{code}} {{reason}}"),
            unit=units.RequestsPerSecond,
        )
        .graph(
            "How long calls take",
            "Half, 90 % and 99 % of answered calls take less.",
            *(
                Query(AT.quantile(each, "visiongate_call_seconds", "", OK), f"p{each * 100:g}")
                for each in (0.5, 0.9, 0.99)
            ),
            unit=units.Seconds,
        )
        .graph(
            "99 % take less, by method",
            "VisiongateSlow from 5 s. Times above a bucket's edge are guessed within the bucket.",
            Query(AT.quantile(0.99, "visiongate_call_seconds", "method", OK), "{{method}}"),
            unit=units.Seconds,
        )
        .graph(
            "Where the time goes",
            "Mean seconds of each stage. Growing `inference` is Triton's, or the queue in front of it; "
            "growing "
            "`decode` or `postprocess` is a lack of processors here.",
            Query(
                AT.mean("visiongate_stage_seconds", "stage"),
                "{{stage}}",
            ),
            unit=units.Seconds,
        )
    )


def _callers(board: Board) -> None:
    (
        board.row("Callers and traffic")
        .graph(
            "Calls by API key",
            "Empty: without a key.",
            Query(AT.rate("visiongate_caller_calls_total", "caller"), "{{caller}}"),
            unit=units.RequestsPerSecond,
            is_stacked=True,
        )
        .graph(
            "Failed calls by API key",
            "INVALID_ARGUMENT: VisiongateBadRequests. RESOURCE_EXHAUSTED: refused.",
            Query(
                AT.rate("visiongate_caller_calls_total", "caller, code", NOT_OK) + " > 0",
                "{{caller}}: {{code}}",
            ),
            unit=units.RequestsPerSecond,
        )
        .graph(
            "Answers over HTTP by status",
            "Those of /livez and /readyz among them.",
            Query(AT.rate("visiongate_http_answers_total", "status"), "{{status}}"),
            unit=units.RequestsPerSecond,
        )
        .graph(
            "Bytes of requests by method",
            "What callers send.",
            Query(AT.rate("visiongate_request_bytes_total", "method"), "{{method}}"),
            unit=units.BytesPerSecondIEC,
            is_stacked=True,
        )
        .graph(
            "Bytes of answers by method",
            "What callers take.",
            Query(AT.rate("visiongate_response_bytes_total", "method"), "{{method}}"),
            unit=units.BytesPerSecondIEC,
            is_stacked=True,
        )
        .graph(
            "TLS handshakes that failed",
            "By OpenSSL's reason, where TLS is on. The log says from where.",
            Query(AT.rate("visiongate_handshake_failures_total", "reason"), "{{reason}}"),
            unit=units.CountsPerSecond,
        )
    )
