"""The command `visiongate top`."""

import time
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from visiongate.address import is_local
from visiongate.command_error import CommandError
from visiongate.commands.common import console, live_page, table

if TYPE_CHECKING:
    from gateway.commands.samples import Samples

app = typer.Typer(rich_markup_mode="markdown")

_TIMEOUT_S = 5


@app.command()
def top(
    address: Annotated[
        str,
        typer.Argument(
            help="Where the gateway has its metrics, HOST:PORT or a URL: its setting metrics_port."
        ),
    ] = "127.0.0.1:9090",
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 2,
    once: Annotated[
        bool, typer.Option("--once", help="Look twice, an interval apart, print the tables, and end.")
    ] = False,
) -> None:
    """Watch a gateway at work: calls, latencies, failures, refusals, its Tritons and its caches.

    Numbers are of the last interval. So are percentiles, which are as exact as the buckets of the histograms.
    A gateway with several processes shows the sum of them. Ctrl-C ends it.
    """
    # They import Prometheus' client, which takes a while.
    from gateway.commands.samples import Change  # noqa: PLC0415
    from gateway.commands.top_view import sections  # noqa: PLC0415

    url = metrics_url(address)
    if once or not console.is_terminal:
        before = scrape(url)
        time.sleep(interval)
        for section in sections(Change(before, scrape(url))):
            table(section.columns, section.rows)
        return
    last: Samples | None = None
    with live_page() as show:
        while True:
            try:
                now = scrape(url)
            except CommandError as error:
                show(f"{error}; this goes on trying", ())
                last = None
            else:
                shown = sections(Change(last, now)) if last else []
                title = f"{url}, {time.strftime('%H:%M:%S')}"
                show(title, ((section.columns, section.rows) for section in shown))
                last = now
            time.sleep(interval)


def metrics_url(address: str) -> str:
    """Return the URL of the metrics at HOST:PORT, or at a URL that may lack the path. Raises CommandError."""
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_right = False
    if not is_right:
        raise CommandError(f"the address is {address!r}: give HOST:PORT or a URL, such as 127.0.0.1:9090")
    return parts._replace(path="/metrics").geturl() if parts.path in ("", "/") else url


def scrape(url: str) -> "Samples":
    """Read the metrics at a URL. Raises CommandError if there are none of a gateway."""
    import httpx  # noqa: PLC0415

    from gateway.commands.samples import Samples  # noqa: PLC0415

    try:
        # A proxy is for other machines: 127.0.0.1 would be the proxy itself.
        host = urlsplit(url).hostname or ""
        answer = httpx.get(url, timeout=_TIMEOUT_S, trust_env=not is_local(host))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CommandError(
            f"nothing to read at {url} ({error}): start the gateway with --metrics-port, and give its address"
        ) from error
    if answer.status_code != httpx.codes.OK:
        raise CommandError(
            f"{url} answers with HTTP status {answer.status_code}: it is not a gateway's metrics"
        )
    try:
        samples = Samples.parse(time.monotonic(), answer.text)
    except ValueError as error:
        raise CommandError(f"what {url} answers is not Prometheus' text format") from error
    if not samples.has("visiongate_"):
        raise CommandError(f"the metrics at {url} are not a visiongate gateway's")
    return samples
