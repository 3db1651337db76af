"""Chance without state: the same seed, name and index give the same number, on every machine."""

from hashlib import blake2b
from math import sqrt


def uniform(seed: str, index: int = 0) -> float:
    """A number in [0, 1)."""
    return int.from_bytes(_digest(seed, index)[:6], "big") / 2**48


def between(low: float, high: float, *, seed: str) -> float:
    """A number in [low, high)."""
    return low + (high - low) * uniform(seed)


def normal(seed: str, index: int = 0) -> float:
    """A number of mean 0 and standard deviation 1, never beyond 3.5: the sum of four uniforms."""
    digest = _digest(seed, index)
    total = sum(int.from_bytes(digest[at : at + 2], "big") / 2**16 for at in (0, 2, 4, 6))
    return (total - 2.0) * sqrt(3.0)


def wander(seed: str, at_ns: int, *, every_ns: int) -> float:
    """A number of mean 0 that walks in straight lines from one draw to the next."""
    index, rest_ns = divmod(at_ns, every_ns)
    share = rest_ns / every_ns
    return normal(seed, index) * (1.0 - share) + normal(seed, index + 1) * share


def _digest(seed: str, index: int) -> bytes:
    return blake2b(f"{seed}/{index}".encode(), digest_size=8).digest()
