"""How the columns of a schema become figures, for many frames at once.

Channel lists of different sites are mostly alike but for the names of their loops: frames of one
shape and length are computed together, as arrays of (n_frames, n_channels, n_rows).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgpack
import numpy as np
from numpy.typing import NDArray

from heatpool.sample import Channel, Schema
from heatpool_aggregator.core.quantity import INDEX, LIMITS

Values = NDArray[np.float64]
Places = NDArray[np.intp]

_ANYTHING = (-np.inf, np.inf)


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What channels of these quantities and exponents need; arrays are (n_channels, 1).

    `places` are the channels that live state keeps, `columns` where it keeps them.
    """

    divisors: Values
    factors: Values
    lows: Values
    highs: Values
    places: Places
    columns: Places


@dataclass(slots=True, eq=False)
class Layout:
    """A schema of one site: its shape, its names for history, its slots once they are known."""

    schema: Schema
    shape: Shape
    names: bytes
    n_channels: int
    cells: Places | None = None


class Layouts:
    """Layouts of schemas; shapes are shared."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[tuple[str, int], ...], Shape] = {}

    def of(self, schema: Schema) -> Layout:
        """A layout without slots yet."""
        signature = tuple((channel.quantity, channel.exponent) for channel in schema.channels)
        shape = self._shapes.get(signature)
        if shape is None:
            shape = self._shapes[signature] = _shape(schema.channels)
        names = [(c.loop_id, c.quantity, c.exponent) for c in schema.channels]
        return Layout(schema=schema, shape=shape, names=msgpack.packb(names), n_channels=len(names))


def _shape(channels: Sequence[Channel]) -> Shape:
    limits = [LIMITS.get(channel.quantity, _ANYTHING) for channel in channels]
    exponents = [channel.exponent for channel in channels]
    places = [place for place, channel in enumerate(channels) if channel.quantity in INDEX]
    return Shape(
        # Dividing by an exact power of ten gives the nearest float, as `codec.unpack` does.
        divisors=_column([10.0 ** -min(exponent, 0) for exponent in exponents]),
        factors=_column([10.0 ** max(exponent, 0) for exponent in exponents]),
        lows=_column([low for low, _ in limits]),
        highs=_column([high for _, high in limits]),
        places=np.array(places, np.intp),
        columns=np.array([INDEX[channels[place].quantity] for place in places], np.intp),
    )


def _column(values: Sequence[float]) -> Values:
    return np.array(values, np.float64)[:, None]


def values_of(cells: NDArray[np.int64], shape: Shape, valid_bits: Sequence[bytes]) -> Values:
    """Values of frames, in the units of their quantities; NaN is absent.

    `cells` is (n_frames, n_channels, n_rows), first cells and differences; each of `valid_bits` is
    empty or has a bit for each cell.
    """
    values = cells.cumsum(axis=2).astype(np.float64)
    values /= shape.divisors
    values *= shape.factors
    if holed := [frame for frame, bits in enumerate(valid_bits) if bits]:
        data = np.frombuffer(b"".join([valid_bits[frame] for frame in holed]), np.uint8)
        n_cells = values[0].size
        bits = np.unpackbits(data.reshape(len(holed), -1), axis=1, bitorder="little")
        is_absent = bits[:, :n_cells].reshape(len(holed), *values.shape[1:]) == 0
        values[np.array(holed)] = np.where(is_absent, np.nan, values[np.array(holed)])
    return values


def beyond(values: Values, shape: Shape) -> NDArray[np.bool_]:
    """(n_frames,): whether a frame has a figure that cannot be."""
    is_beyond = (values < shape.lows) | (values > shape.highs)
    return np.asarray(is_beyond.any(axis=(1, 2)))
