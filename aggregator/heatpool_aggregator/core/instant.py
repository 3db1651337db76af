"""An instant as people and programs read it."""

from datetime import UTC, datetime

from heatpool.units import NS_PER_S


def utc(at_ns: int) -> str:
    """An instant in UTC to the second, after ISO 8601; `at_ns` since 1970."""
    return datetime.fromtimestamp(at_ns // NS_PER_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
