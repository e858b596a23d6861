"""Charts as inline SVG, so that a review page needs nothing but itself."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from medssl.downstream.comparison import Comparison, percent

WIDTH, HEIGHT = 560, 260
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 52, 14, 14, 38
MAX_POINTS = 500
Point = tuple[float, float]


def dice_over_labels(comparison: Comparison) -> str:
    """Dice over the number of labelled scans: one line per init with its 95 % intervals. Rows with NaN are left out."""
    rows = [row for row in comparison.rows if all(map(math.isfinite, (row.dice.mean, row.dice.low, row.dice.high)))]
    if not rows:
        return ""
    counts = sorted({row.num_labelled for row in rows})
    low = min(100 * row.dice.low for row in rows)
    high = max(100 * row.dice.high for row in rows)
    frame = _Frame((-0.4, len(counts) - 0.6), (math.floor(low - 1.0) * 1.0, math.ceil(high + 1.0) * 1.0))
    parts = frame.axes([(float(i), str(n)) for i, n in enumerate(counts)], x_title="labelled scans", y_title="Dice (%)")
    for index, init in enumerate(comparison.inits):
        # Side by side, so that intervals at one number of labelled scans do not cover each other.
        shift = 0.07 * (index - (len(comparison.inits) - 1) / 2)
        of_init = sorted((row for row in rows if row.init == init), key=lambda row: row.num_labelled)
        curve = [(counts.index(row.num_labelled) + shift, 100 * row.dice.mean) for row in of_init]
        parts.append(frame.line(curve, index))
        for (x, y), row in zip(curve, of_init, strict=True):
            interval = f"{percent(row.dice.low)} to {percent(row.dice.high)}"
            parts.append(frame.whisker(x, 100 * row.dice.low, 100 * row.dice.high, index))
            parts.append(frame.dot(x, y, index, f"{init}, {row.num_labelled} labelled scans: {y:.1f} ({interval})"))
    return _svg(parts, "Dice over the number of labelled scans") + _legend(comparison.inits)


def curves(title: str, lines: Mapping[str, Sequence[Point]]) -> str:
    """Metrics over steps, at most about 500 points a line, evenly spaced."""
    finite = {name: [p for p in points if math.isfinite(p[1])] for name, points in lines.items()}
    finite = {name: points for name, points in finite.items() if points}
    if not finite:
        return ""
    xs = [x for points in finite.values() for x, _ in points]
    ys = [y for points in finite.values() for _, y in points]
    pad = 0.05 * (max(ys) - min(ys)) or abs(max(ys)) * 0.1 or 1.0
    frame = _Frame((0.0, max(xs) or 1.0), (min(ys) - pad, max(ys) + pad))
    ticks = [(x, f"{x:g}") for x in _nice(0.0, max(xs) or 1.0)]
    parts = frame.axes(ticks, x_title="step", y_title="")
    for index, points in enumerate(finite.values()):
        stride = max(1, math.ceil(len(points) / MAX_POINTS))
        parts.append(frame.line([*points[::stride], points[-1]], index))
    names = tuple(finite)
    legend = _legend(names) if len(names) > 1 else ""
    return f"<figure><figcaption>{escape(title)}</figcaption>{_svg(parts, title)}{legend}</figure>"


class _Frame:
    """Maps values to the drawing."""

    def __init__(self, x: Point, y: Point) -> None:
        self._x, self._y = x, y

    def px(self, x: float) -> float:
        return MARGIN_LEFT + (x - self._x[0]) / (self._x[1] - self._x[0]) * (WIDTH - MARGIN_LEFT - MARGIN_RIGHT)

    def py(self, y: float) -> float:
        height = HEIGHT - MARGIN_TOP - MARGIN_BOTTOM
        return HEIGHT - MARGIN_BOTTOM - (y - self._y[0]) / (self._y[1] - self._y[0]) * height

    def axes(self, x_ticks: Sequence[tuple[float, str]], *, x_title: str, y_title: str) -> list[str]:
        parts = []
        for value in _nice(*self._y):
            y = self.py(value)
            parts.append(
                f'<line class="grid" x1="{MARGIN_LEFT}" x2="{WIDTH - MARGIN_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            parts.append(f'<text x="{MARGIN_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        for value, text in x_ticks:
            x, y = f"{self.px(value):.1f}", HEIGHT - MARGIN_BOTTOM + 16
            parts.append(f'<text x="{x}" y="{y}" text-anchor="middle">{escape(text)}</text>')
        middle = (MARGIN_LEFT + WIDTH - MARGIN_RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_title)}</text>')
        if y_title:
            up = (MARGIN_TOP + HEIGHT - MARGIN_BOTTOM) / 2
            parts.append(
                f'<text transform="translate(13,{up}) rotate(-90)" text-anchor="middle">{escape(y_title)}</text>'
            )
        return parts

    def line(self, points: Sequence[Point], colour: int) -> str:
        path = " ".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in points)
        return f'<polyline class="c{colour % 6}" points="{path}"/>'

    def whisker(self, x: float, low: float, high: float, colour: int) -> str:
        px = f"{self.px(x):.1f}"
        return f'<line class="c{colour % 6}" x1="{px}" x2="{px}" y1="{self.py(low):.1f}" y2="{self.py(high):.1f}"/>'

    def dot(self, x: float, y: float, colour: int, title: str) -> str:
        centre = f'cx="{self.px(x):.1f}" cy="{self.py(y):.1f}"'
        return f'<circle class="c{colour % 6}" {centre} r="4"><title>{escape(title)}</title></circle>'


def _nice(low: float, high: float) -> list[float]:
    """About five round values between low and high."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(k for k in (1, 2, 5, 10) if (high - low) / (k * step) <= 6)
    first = math.ceil(low / step)
    return [float(round(k * step, 10)) for k in range(first, math.floor(high / step) + 1)]


def _svg(parts: Sequence[str], label: str) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{body}</svg>'


def _legend(names: Sequence[str]) -> str:
    items = "".join(f'<span><i class="c{i % 6}"></i>{escape(name)}</span>' for i, name in enumerate(names))
    return f'<p class="legend">{items}</p>'
