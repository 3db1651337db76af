"""Energy of a power held over a step, counted in whole units: nothing is lost between steps."""

from fractions import Fraction


class EnergyCount:
    """Energy since the start as a whole number of uJ, exact for the powers it was given."""

    def __init__(self, start_uj: int = 0) -> None:
        self._uj = start_uj
        self._rest = Fraction(0)

    @property
    def uj(self) -> int:
        """Whole uJ counted so far."""
        return self._uj

    @property
    def mj(self) -> int:
        """Whole mJ counted so far."""
        return self._uj // 1000

    def add(self, power_w: float, dt_s: float) -> None:
        """Counts the energy of a power, W, held for so many seconds."""
        grown = self._rest + Fraction(power_w) * Fraction(dt_s) * 10**6
        whole = grown.numerator // grown.denominator
        self._uj += whole
        self._rest = grown - whole

    def begin(self, start_uj: int = 0) -> None:
        """Begins anew, as after a reset."""
        self._uj, self._rest = start_uj, Fraction(0)
