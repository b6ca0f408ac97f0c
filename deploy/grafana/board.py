"""What the dashboards are made of: panels with their queries, variables, links."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Self

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueTextMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
)

TAG = "visiongate"
_PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${datasource}")
_GRAPH_HEIGHT, _NUMBER_HEIGHT = 8, 4
GREEN, ORANGE, RED = "green", "orange", "red"


@dataclass(frozen=True, slots=True)
class Query:
    """An expression of PromQL, and what the legend calls its series."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Levels:
    """From which values a number is coloured. The colour below the first one is `below`."""

    below: str = GREEN
    steps: Sequence[tuple[float, str]] = ()

    def build(self) -> ThresholdsConfig:
        steps = [Threshold(None, self.below), *(Threshold(value, color) for value, color in self.steps)]
        return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


ANY = Levels()


class Board:
    """A dashboard that is written from the top left to the bottom right."""

    def __init__(self, uid: str, title: str, description: str) -> None:
        self._panels = 0
        self._dashboard = (
            Dashboard(title)
            .uid(uid)
            .description(description)
            .tags([TAG])
            .editable()
            .timezone("browser")
            .time("now-3h", "now")
            .refresh("30s")
            .tooltip(DashboardCursorSync.CROSSHAIR)
            .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
            .link(
                DashboardLink("Firing alerts")
                .type(DashboardLinkType.LINK)
                .url("/alerting/list?search=Visiongate")
                .icon("bell")
                .tooltip("What each alert means and what to do: gateway/README.md, Alerts")
            )
            .link(
                DashboardLink("Other dashboards")
                .type(DashboardLinkType.DASHBOARDS)
                .tags([TAG])
                .include_vars(True)
                .keep_time(True)
            )
        )

    def variable(self, name: str, label: str, values: str, *, current: str | None = None) -> Self:
        """Offer values of a label: label_values(METRIC, LABEL). All of them where `current` is none."""
        variable = (
            QueryVariable(name)
            .label(label)
            .query(values)
            .datasource(_PROMETHEUS)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
        if current is None:
            # Also series without the label: outside Kubernetes there is no namespace.
            variable.include_all(True).all_value(".*").multi(True)
            variable.current(VariableOption(text="All", value="$__all", selected=True))
        else:
            variable.current(VariableOption(text=current, value=current, selected=True))
        self._dashboard.with_variable(variable)
        return self

    def mark_alerts(self, expression: str) -> Self:
        """Mark in all graphs when alerts fired."""
        self._dashboard.annotation(
            AnnotationQuery()
            .name("Alerts")
            .datasource(_PROMETHEUS)
            .enable(True)
            .icon_color(RED)
            .expr(expression)
        )
        return self

    def row(self, title: str) -> Self:
        """Begin a part."""
        self._panels += 1
        self._dashboard.with_row(Row(title).id(self._panels))
        return self

    def number(
        self,
        title: str,
        description: str,
        *queries: Query,
        unit: str = units.Short,
        levels: Levels = ANY,
        width: int = 3,
    ) -> Self:
        """Add the present value of queries, in the colour of its level."""
        panel = (
            stat.Panel()
            .title(title)
            .description(description)
            .datasource(_PROMETHEUS)
            .unit(unit)
            .span(width)
            .height(_NUMBER_HEIGHT)
            .thresholds(levels.build())
            .color_mode(BigValueColorMode.BACKGROUND)
            .text_mode(BigValueTextMode.VALUE_AND_NAME if len(queries) > 1 else BigValueTextMode.VALUE)
            .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
            .no_value("no data")
        )
        return self._add(panel, queries)

    def graph(
        self,
        title: str,
        description: str,
        *queries: Query,
        unit: str = units.Short,
        width: int = 8,
        is_stacked: bool = False,
        maximum: float | None = None,
    ) -> Self:
        """Add a graph of queries over time, from 0."""
        panel = (
            timeseries.Panel()
            .title(title)
            .description(description)
            .datasource(_PROMETHEUS)
            .unit(unit)
            .min(0)
            .span(width)
            .height(_GRAPH_HEIGHT)
            .fill_opacity(30 if is_stacked else 5)
            .stacking(common.StackingConfig().mode(StackingMode.NORMAL if is_stacked else StackingMode.NONE))
            .legend(
                common.VizLegendOptions()
                .display_mode(LegendDisplayMode.TABLE)
                .placement(LegendPlacement.BOTTOM)
                .show_legend(True)
                .calcs(["lastNotNull", "max"])
            )
            .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        )
        if maximum is not None:
            panel.max(maximum)
        return self._add(panel, queries)

    def _add(self, panel: stat.Panel | timeseries.Panel, queries: Sequence[Query]) -> Self:
        self._panels += 1
        panel.id(self._panels)
        for name, query in zip(ascii_uppercase, queries, strict=False):
            panel.with_target(
                prometheus.Dataquery()
                .ref_id(name)
                .datasource(_PROMETHEUS)
                .expr(query.expression)
                .legend_format(query.legend)
            )
        self._dashboard.with_panel(panel)
        return self

    def dashboard(self) -> Dashboard:
        return self._dashboard
