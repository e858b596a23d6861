"""Charts as inline SVG, so that a review page needs nothing but itself."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from medssl.tracking.evidence import Evidence

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 260, 52, 14, 14, 38
MAX_POINTS = 500
Point = tuple[float, float]


def dice_over_labels(evidence: Evidence) -> str:
    """Dice over the number of labels: one line per start with its 95 % intervals. A mean of no scan at all (NaN) has no
    place in it.
    """
    lines = [line for line in evidence.lines if all(map(math.isfinite, line.dice))]
    if not lines:
        return ""
    counts = sorted({line.labels for line in lines})
    low = min(100 * line.dice[1] for line in lines)
    high = max(100 * line.dice[2] for line in lines)
    frame = _Frame((-0.4, len(counts) - 0.6), (math.floor(low - 1.0) * 1.0, math.ceil(high + 1.0) * 1.0))
    parts = frame.axes(
        [(float(i), str(n)) for i, n in enumerate(counts)], x_title="labelled scans", y_title="Dice (points of 100)"
    )
    starts = evidence.starts
    for index, start in enumerate(starts):
        shift = 0.07 * (index - (len(starts) - 1) / 2)
        own = sorted((line for line in lines if line.init == start), key=lambda line: line.labels)
        at = [(counts.index(line.labels) + shift, 100 * line.dice[0]) for line in own]
        parts.append(frame.line(at, index))
        for (x, y), line in zip(at, own, strict=True):
            span = f"{100 * line.dice[1]:.1f} to {100 * line.dice[2]:.1f}"
            parts.append(frame.whisker(x, 100 * line.dice[1], 100 * line.dice[2], index))
            parts.append(frame.dot(x, y, index, f"{start}, {line.labels} labels: {y:.1f} ({span})"))
    return _svg(parts, "Dice over the number of labelled scans") + _legend(starts)


def curves(title: str, lines: Mapping[str, Sequence[Point]]) -> str:
    """Metrics over steps; points beyond 500 a line are thinned out evenly."""
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

    def at(self, x: float, y: float) -> str:
        return f"{self.px(x):.1f},{self.py(y):.1f}"

    def px(self, x: float) -> float:
        return LEFT + (x - self._x[0]) / (self._x[1] - self._x[0]) * (WIDTH - LEFT - RIGHT)

    def py(self, y: float) -> float:
        return HEIGHT - BOTTOM - (y - self._y[0]) / (self._y[1] - self._y[0]) * (HEIGHT - TOP - BOTTOM)

    def axes(self, x_ticks: Sequence[tuple[float, str]], *, x_title: str, y_title: str) -> list[str]:
        parts = []
        for value in _nice(*self._y):
            y = self.py(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        for value, text in x_ticks:
            parts.append(
                f'<text x="{self.px(value):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{escape(text)}</text>'
            )
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_title)}</text>')
        if y_title:
            up = (TOP + HEIGHT - BOTTOM) / 2
            parts.append(
                f'<text transform="translate(13,{up}) rotate(-90)" text-anchor="middle">{escape(y_title)}</text>'
            )
        return parts

    def line(self, points: Sequence[Point], colour: int) -> str:
        return f'<polyline class="c{colour % 6}" points="{" ".join(self.at(x, y) for x, y in points)}"/>'

    def whisker(self, x: float, low: float, high: float, colour: int) -> str:
        px = f"{self.px(x):.1f}"
        return f'<line class="c{colour % 6}" x1="{px}" x2="{px}" y1="{self.py(low):.1f}" y2="{self.py(high):.1f}"/>'

    def dot(self, x: float, y: float, colour: int, title: str) -> str:
        place = f'cx="{self.px(x):.1f}" cy="{self.py(y):.1f}" r="4"'
        return f'<circle class="c{colour % 6}" {place}><title>{escape(title)}</title></circle>'


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
