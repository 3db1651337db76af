"""The last spans a loop showed, newest last: what a delayed filter still has to come to."""

from collections.abc import Iterator

# Length in s, electric power in W, ln of measured conductance in W/K; None is absent.
Past = tuple[float, float | None, float | None]
_LONGEST_S = 400.0
_MOST = 160


def added(past: tuple[Past, ...], span: Past) -> tuple[Past, ...]:
    """The past with one span more, and without what nobody asks for any longer."""
    kept = (*past[-_MOST + 1 :], span)
    length_s = sum([one[0] for one in kept])
    drop = 0
    while drop < len(kept) - 1 and length_s - kept[drop][0] > _LONGEST_S + span[0]:
        length_s -= kept[drop][0]
        drop += 1
    return kept[drop:]


def pieces(past: tuple[Past, ...], start_s: float, end_s: float) -> Iterator[tuple[float, Past]]:
    """Parts of spans from `start_s` to `end_s` ago, newest first, each with its length in s.

    Further back than anything kept, the oldest span went on for ever.
    """
    back_s = 0.0
    for span in reversed(past):
        length_s = min(back_s + span[0], start_s) - max(back_s, end_s)
        if length_s > 0.0:
            yield length_s, span
        back_s += span[0]
        if back_s >= start_s:
            return
    if past and start_s > max(back_s, end_s):
        yield start_s - max(back_s, end_s), past[0]


def power_between(past: tuple[Past, ...], start_s: float, end_s: float) -> float | None:
    """Mean electric power between two times ago, W; None where most of it is absent."""
    total = known_s = all_s = 0.0
    for length_s, (_, power_w, _) in pieces(past, start_s, end_s):
        all_s += length_s
        if power_w is not None:
            total += length_s * power_w
            known_s += length_s
    return total / known_s if known_s > 0.5 * all_s else None


def power_at(past: tuple[Past, ...], ago_s: float) -> float | None:
    """Electric power at a time ago, W."""
    for _, span in pieces(past, ago_s + 1e-3, ago_s):
        return span[1]
    return None


def flow_between(past: tuple[Past, ...], start_s: float, end_s: float) -> tuple[float, int] | None:
    """Mean ln of conductance of the spans whose middle lies between two times ago, and how many.

    Windows that follow each other use each span once, whatever their lengths.
    """
    back_s = total = 0.0
    count = 0
    for span in reversed(past):
        middle_s = back_s + 0.5 * span[0]
        if middle_s >= start_s:
            break
        if middle_s >= end_s and span[2] is not None:
            total += span[2]
            count += 1
        back_s += span[0]
    return (total / count, count) if count else None
