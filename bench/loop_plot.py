"""A drawing of the bench's figures: error of each estimator beside the limit."""

from loop_candidates import REFERENCE
from loop_scores import HEAT, Score

ROW, LEFT, WIDE, HEAD = 18, 170, 420, 30
PALETTE = {HEAT: "#c2410c", "5.5 h": "#1d4ed8"}


def svg(results: dict[str, dict[str, dict[str, Score]]]) -> str:
    """Bars of the error at 10 s and over 5.5 h, a line where the limit is, one block per case."""
    most = max(
        one[span].rms_frac
        for found in results.values()
        for one in found.values()
        for span in PALETTE
        if span in one
    )
    scale, parts, y = WIDE / most, [], 10
    for case_name, found in results.items():
        y += HEAD
        parts.append(f'<text x="8" y="{y - 8}" font-weight="bold">{case_name}</text>')
        for name, one in found.items():
            parts.append(f'<text x="8" y="{y + 12}">{name}</text>')
            parts += _bars(one, found[REFERENCE], y, scale)
            y += ROW
    size = f'width="{LEFT + WIDE + 70}" height="{y + 40}"'
    key = "".join(
        f'<text x="{LEFT + 90 * place}" y="{y + 24}" fill="{colour}">{span}</text>'
        for place, (span, colour) in enumerate(PALETTE.items())
    )
    style = '<rect width="100%" height="100%" fill="white"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
        f"{style}{''.join(parts)}{key}"
        f'<text x="{LEFT + 190}" y="{y + 24}">RMS error, % of mean heat; line: limit</text></svg>\n'
    )


def _bars(one: dict[str, Score], limit: dict[str, Score], y: int, scale: float) -> list[str]:
    parts = []
    for place, (span, colour) in enumerate(PALETTE.items()):
        if span not in one:
            continue
        top, share = y + 2 + 7 * place, one[span].rms_frac
        at = LEFT + scale * limit[span].claimed_frac
        parts.append(
            f'<rect x="{LEFT}" y="{top}" width="{scale * share:.1f}" height="6" fill="{colour}"/>'
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{top + 6}" stroke="black"/>'
        )
    return parts
