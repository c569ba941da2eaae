"""The yield curve of a threshold as an SVG picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from curation.report import short

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 48, 56
COLOURS = {"kept": "#2f74d0", "to_measure": "#8a94a3"}


def yield_curve(key: str, values: Sequence[float], counts: Sequence[Mapping[str, int]]) -> str:
    """Clips kept over the threshold `key`, and above them those that would have to be measured first."""
    most = max(max(c["kept"] + c["to_measure"] for c in counts), 1)
    low, high = values[0], values[-1]

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((value - low) / (high - low) if high > low else 0.5)

    def y(clips: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * clips / most

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, DejaVu Sans, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for part in range(5):
        clips = most * part / 4
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(clips):.1f}" y2="{y(clips):.1f}" stroke="#dfe3ea"/>'
            f'<text x="{LEFT - 8}" y="{y(clips) + 4:.1f}" text-anchor="end" fill="#5c6779">'
            f"{short(round(clips, 1))}</text>"
        )
    ticks = sorted({round(i * (len(values) - 1) / 8) for i in range(9)})
    for value in (values[i] for i in ticks):
        parts.append(
            f'<text x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" fill="#5c6779">{value:g}</text>'
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle" fill="#1c2330">'
        f"{escape(key)}</text>"
    )
    lines = {"kept": [c["kept"] for c in counts]}
    if any(c["to_measure"] for c in counts):
        lines["to_measure"] = [c["kept"] + c["to_measure"] for c in counts]
    for place, (name, line) in enumerate(lines.items()):
        points = " ".join(f"{x(v):.1f},{y(c):.1f}" for v, c in zip(values, line, strict=True))
        dash = ' stroke-dasharray="5 4"' if name != "kept" else ""
        label = "kept" if name == "kept" else "kept, and let through but not measured yet"
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" stroke-width="2.5"{dash}/>'
            f'<text x="{LEFT + 110 * place}" y="28" fill="{COLOURS[name]}">{label}</text>'
        )
        parts += [
            f'<circle cx="{x(v):.1f}" cy="{y(c):.1f}" r="3" fill="{COLOURS[name]}"/>'
            for v, c in zip(values, line, strict=True)
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
