"""Expressions of PromQL about the series that a dashboard's variables choose."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Series:
    """All series of some targets. matchers: of their labels, without braces: job="$job"."""

    matchers: str

    def of(self, metric: str, *matchers: str) -> str:
        """Return a metric's series, of those that match."""
        return f"{metric}{{{','.join((self.matchers, *matchers))}}}"

    def rate(self, counter: str, by: str = "", *matchers: str) -> str:
        """Return the growth of a counter each second, added up by labels."""
        grouped = f"sum by ({by})" if by else "sum"
        return f"{grouped} (rate({self.of(counter, *matchers)}[$__rate_interval]))"

    def increase(self, counter: str, by: str) -> str:
        """Return the growth of a counter in a step of the graph, added up by labels."""
        return f"sum by ({by}) (increase({self.of(counter)}[$__rate_interval]))"

    def share(self, counter: str, matcher: str, by: str = "") -> str:
        """Return how much of a counter's growth is in the series that match: 0 to 1."""
        return f"{self.rate(counter, by, matcher)} / {self.rate(counter, by)}"

    def mean(self, histogram: str, by: str) -> str:
        """Return the mean of what a histogram has counted, by labels."""
        return f"{self.rate(f'{histogram}_sum', by)} / {self.rate(f'{histogram}_count', by)}"

    def quantile(self, quantile: float, histogram: str, by: str = "", *matchers: str) -> str:
        """Return below which value a part of what a histogram has counted is, by labels."""
        labels = f"le, {by}" if by else "le"
        return f"histogram_quantile({quantile}, {self.rate(f'{histogram}_bucket', labels, *matchers)})"
