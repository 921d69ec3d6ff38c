"""The figures of `comparison.html`, from what `potstill.sweeps.comparison.compare` returned.

Each returns None where it would show nothing. Names and values are the user's: they are escaped, because plotly reads
its texts as HTML. plotly comes with the extra `sweeps`, so it is imported when a figure is drawn.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, log10
from typing import Any

from potstill.evaluation.ranking import SHARES
from potstill.reporting.comparison import costs_of, metric_text, short_name, value_text
from potstill.sweeps.importance import is_numeric, needs_log
from potstill.sweeps.seeds import HOLDS_UP

BLUE, GREY, ORANGE = "#2f6690", "#9aa5b1", "#d1603d"
FONT = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"
PER_ROW, PANEL_HEIGHT_PX, MAX_LETTERS = 3, 290, 22
MIN_TICK_DISTANCE = 0.07  # of the height of an axis of parallel coordinates


def slice_figure(comparison: dict[str, Any]) -> Any:
    """The metric against each varying key, one point a run."""
    from plotly.subplots import make_subplots

    runs, keys = ranked_runs(comparison), list(comparison["keys"])
    if len(runs) < 2 or not keys:
        return None
    num_rows = ceil(len(keys) / PER_ROW)
    spacing: dict[str, Any] = {
        "vertical_spacing": min(0.5, 85 / PANEL_HEIGHT_PX) / num_rows,
        "horizontal_spacing": 0.06,
    }
    figure = make_subplots(num_rows, min(PER_ROW, len(keys)), shared_yaxes=True, **spacing)
    for number, key in enumerate(keys):
        place: dict[str, Any] = {"row": number // PER_ROW + 1, "col": number % PER_ROW + 1}
        values = [run["values"][key] for run in runs]
        figure.add_scatter(x=_places(values), **_points(comparison, runs), **place)
        figure.update_xaxes(title_text=_escape(short_name(comparison, key)), **_axis(values), **place)
        if number % PER_ROW == 0:
            figure.update_yaxes(**_metric_axis(comparison["metric"]), **place)
    return _styled(figure, height=PANEL_HEIGHT_PX * num_rows + 30)


def pareto_figure(comparison: dict[str, Any]) -> Any:
    """Quality against cost, one point a group, those on the front joined."""
    import plotly.graph_objects as go

    cost, metric = comparison["cost"], comparison["metric"]
    if len(costs_of(comparison)) < 2:
        return None
    groups = sorted(
        (group for group in comparison["groups"] if cost in group["means"]), key=lambda group: group["means"][cost]
    )
    figure = go.Figure()
    for label, color, is_on_front in (("others", GREY, False), ("on the front", ORANGE, True)):
        chosen = [group for group in groups if group["is_on_front"] is is_on_front]
        figure.add_scatter(
            x=[group["means"][cost] for group in chosen],
            y=[group["mean"] for group in chosen],
            mode="lines+markers" if is_on_front else "markers",
            line={"shape": "hv", "width": 1.5, "dash": "dot"},
            marker={"color": color, "size": 10},
            name=label,
            text=[_group_hover(comparison, group) for group in chosen],
            hovertemplate="%{text}<extra></extra>",
        )
    figure.update_xaxes(title_text=_escape(_with_unit(cost)), **_axis([group["means"][cost] for group in groups]))
    figure.update_yaxes(**_metric_axis(metric))
    return _styled(figure, height=380, showlegend=True)


def importance_figure(comparison: dict[str, Any]) -> Any:
    import plotly.graph_objects as go

    importance = comparison["importance"]
    if not isinstance(importance, dict) or len(importance) < 2:
        return None
    names = [_escape(short_name(comparison, key)) for key in importance]
    shares = list(importance.values())
    bars = go.Bar(x=shares, y=names, orientation="h", marker_color=BLUE, text=[f"{share:.2f}" for share in shares])
    figure = go.Figure(bars.update(hovertext=[_escape(key) for key in importance], hoverinfo="text", cliponaxis=False))
    figure.update_traces(textposition="outside")
    figure.update_xaxes(title_text=_escape(f"share of the spread of {comparison['metric']}"), range=[0, 1.08])
    figure.update_yaxes(autorange="reversed")
    return _styled(figure, height=90 + 34 * len(names))


def lead_figure(comparison: dict[str, Any]) -> Any:
    """How far the best group is ahead of each other, with 95 % intervals."""
    import plotly.graph_objects as go

    metric = comparison["metric"]
    groups = [group for group in comparison["groups"] if (group["best_leads_by"] or {}).get("low") is not None]
    if not groups:
        return None
    leads = [group["best_leads_by"] for group in groups]
    figure = go.Figure()
    figure.add_scatter(
        x=[lead["value"] for lead in leads],
        y=[f"{group['place']}: {_label(group)}" for group in groups],
        error_x={
            "array": [lead["high"] - lead["value"] for lead in leads],
            "arrayminus": [lead["value"] - lead["low"] for lead in leads],
            "color": GREY,
        },
        mode="markers",
        marker={"size": 9, "color": [ORANGE if lead["verdict"] == HOLDS_UP else GREY for lead in leads]},
        text=[
            f"{_group_hover(comparison, group)}<br>{lead['verdict']}" for group, lead in zip(groups, leads, strict=True)
        ],
        hovertemplate="%{text}<extra></extra>",
    )
    figure.add_vline(x=0, line={"color": "#333", "width": 1})
    axis: dict[str, Any] = _metric_axis(metric)
    axis["title_text"] = f"best - this, {axis['title_text']}; whisker: 95 % interval"
    figure.update_xaxes(**axis)
    figure.update_yaxes(autorange="reversed", automargin=True)
    return _styled(figure, height=110 + 30 * len(groups))


def parallel_figure(comparison: dict[str, Any]) -> Any:
    """One line a run over its values and its metric. Drawn as plain lines: each can be hovered, and printed."""
    import plotly.graph_objects as go
    from plotly.colors import sample_colorscale

    runs, keys, metric = ranked_runs(comparison), list(comparison["keys"]), comparison["metric"]
    if len(runs) < 3 or len(keys) < 2:
        return None
    axes = [(short_name(comparison, key), [run["values"][key] for run in runs], value_text) for key in keys]
    measured = [run["metrics"][metric] for run in runs]
    axes.append((metric, measured, lambda value: metric_text(metric, value)))
    heights = [_heights(values) for _, values, _ in axes]
    figure = go.Figure()
    goodness = heights[-1] if comparison["higher_is_better"] else [1 - height for height in heights[-1]]
    for number in sorted(range(len(runs)), key=goodness.__getitem__):
        [color] = sample_colorscale("Cividis_r", [goodness[number]])
        figure.add_scatter(
            x=list(range(len(axes))),
            y=[column[number] for column in heights],
            mode="lines",
            line={"color": color, "width": 2},
            text=[_hover(comparison, runs[number])] * len(axes),
            hovertemplate="%{text}<extra></extra>",
        )
    for place, ((name, values, text), column) in enumerate(zip(axes, heights, strict=True)):
        ticks = {height: text(value) for value, height in zip(values, column, strict=True)}
        _draw_axis(figure, place, name, ticks, is_last=place == len(keys))
    figure.update_xaxes(visible=False, range=[-0.4, len(axes) - 0.6])
    figure.update_yaxes(visible=False, range=[-0.08, 1.18])
    return _styled(figure, height=420).update_layout(margin={"l": 20, "r": 20, "t": 5, "b": 5})


def ranked_runs(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    ranking = {name for group in comparison["groups"] for name in group["runs"]}
    return [run for run in comparison["runs"] if run["name"] in ranking]


def _points(comparison: dict[str, Any], runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "y": [run["metrics"][comparison["metric"]] for run in runs],
        "mode": "markers",
        "marker": {"color": BLUE, "size": 9, "opacity": 0.65},
        "text": [_hover(comparison, run) for run in runs],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _places(values: Sequence[Any]) -> list[Any]:
    return list(values) if is_numeric(values) else [_cut(value_text(value)) for value in values]


def _axis(values: Sequence[Any]) -> dict[str, Any]:
    if not is_numeric(values):
        return {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": [_cut(text) for text in _in_order(values)],
        }
    if needs_log(values):
        return {"type": "log", "dtick": 1, "exponentformat": "power"}
    few = sorted(set(values))
    return {"tickvals": few} if len(few) <= 6 and _are_apart(few) else {}


def _in_order(values: Sequence[Any]) -> list[str]:
    """The texts of categories, once each; numbers among them by size, after all others."""
    numbers = sorted({value for value in values if is_numeric([value])})
    return [*sorted({value_text(value) for value in values if not is_numeric([value])}), *map(value_text, numbers)]


def _are_apart(values: Sequence[float]) -> bool:
    """Whether ticks at just these values would not run into each other."""
    span = values[-1] - values[0]
    return all(later - earlier >= 0.08 * span for earlier, later in pairwise(values))


def _metric_axis(metric: str) -> dict[str, Any]:
    is_share = metric.rpartition("/")[2] in SHARES
    return {"title_text": _escape(_with_unit(metric)), "tickformat": ".1~%" if is_share else ""}


def _with_unit(metric: str) -> str:
    units = {"loss": "nats per row", "seconds": "s", "model_bytes": "bytes"}
    name = metric.rpartition("/")[2]
    unit = units.get(name, "ms" if name.startswith("latency_ms") else "")
    return f"{metric} ({unit})" if unit else metric


def _heights(values: Sequence[Any]) -> list[float]:
    """Places between 0 and 1 on an axis of parallel coordinates."""
    if is_numeric(values):
        scaled = [log10(value) for value in values] if needs_log(values) else [float(value) for value in values]
    else:
        order = _in_order(values)
        scaled = [float(order.index(value_text(value))) for value in values]
    low, span = min(scaled), max(scaled) - min(scaled)
    return [(value - low) / span if span else 0.5 for value in scaled]


def _draw_axis(figure: Any, place: int, name: str, ticks: dict[float, str], *, is_last: bool) -> None:
    """ticks: height -> text; those too near to the one below are left out."""
    figure.add_shape(type="line", x0=place, x1=place, y0=0, y1=1, line={"color": "#333", "width": 1})
    figure.add_annotation(x=place, y=1.1, text=f"<b>{_cut(name)}</b>", showarrow=False)
    side = {"xanchor": "left", "xshift": 5} if is_last else {"xanchor": "right", "xshift": -5}
    last = -1.0
    for height, text in sorted(ticks.items()):
        if height - last >= MIN_TICK_DISTANCE:
            last = height
            box = {"showarrow": False, "bgcolor": "rgba(255,255,255,0.8)"}
            figure.add_annotation(x=place, y=height, text=_cut(text), **box, **side)


def _hover(comparison: dict[str, Any], run: dict[str, Any]) -> str:
    metric = comparison["metric"]
    own = run["overrides"] or [f"{key}={value_text(value)}" for key, value in run["values"].items()]
    lines = [f"seed={run['seed']}"] if not any(text.startswith("seed=") for text in own) else []
    shown = [_escape(line) for line in (*own, *lines)]
    return "<br>".join([f"<b>{_escape(run['name'])}</b>: {metric_text(metric, run['metrics'][metric])}", *shown])


def _group_hover(comparison: dict[str, Any], group: dict[str, Any]) -> str:
    metric, cost = comparison["metric"], comparison["cost"]
    lines = [f"<b>{_escape(', '.join(group['runs']))}</b>: {metric_text(metric, group['mean'])}"]
    if cost in group["means"]:
        lines.append(_escape(f"{cost}: {metric_text(cost, group['means'][cost])}"))
    return "<br>".join([*lines, *(_escape(f"{key}={value_text(value)}") for key, value in group["values"].items())])


def _label(group: dict[str, Any]) -> str:
    """A group's values on one axis label; long ones by their end."""
    return _escape(", ".join(value_text(value)[-MAX_LETTERS // 2 :] for value in group["values"].values()))


def _escape(text: str) -> str:
    return html.escape(text, quote=False)


def _cut(text: str) -> str:
    return _escape(text if len(text) <= MAX_LETTERS else f"...{text[3 - MAX_LETTERS :]}")


def _styled(figure: Any, *, height: int, showlegend: bool = False) -> Any:
    return figure.update_layout(
        template="plotly_white",
        font={"family": FONT, "size": 13, "color": "#222"},
        height=height,
        showlegend=showlegend,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        margin={"l": 70, "r": 20, "t": 30, "b": 55},
        hoverlabel={"align": "left", "bgcolor": "white"},
    )


FIGURES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "leads": lead_figure,
    "pareto": pareto_figure,
    "importance": importance_figure,
    "slices": slice_figure,
    "parallel": parallel_figure,
}
