"""Computers: electric power in, heat into liquid and into air, some of it late."""

from dataclasses import dataclass
from math import expm1


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """All computers of a site behind one feed.

    `overhead_frac` is what supplies and fans use on top of the IT load. `capture_frac` is heat in
    the liquid over electric power, in steady state.
    """

    overhead_frac: float
    capture_frac: float
    tau_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerHeat:
    """One step, J: electric = liquid + air + stored."""

    electric_j: float
    liquid_j: float
    air_j: float
    stored_j: float


def electric_w(server: Server, it_w: float) -> float:
    """Electric power at the feed, W."""
    return it_w * (1.0 + server.overhead_frac)


def steady_j(server: Server, it_w: float) -> float:
    """Heat that the metal holds above its rest once the load has long been steady, J."""
    return server.capture_frac * electric_w(server, it_w) * server.tau_s


def step(server: Server, held_j: float, *, it_w: float, dt_s: float) -> tuple[float, ServerHeat]:
    """The held heat after the step and the step's energies, J; exact for a load held over it.

    The metal gives its heat to the liquid with one time constant: dE/dt = capture * P - E / tau.
    """
    electric_j = electric_w(server, it_w) * dt_s
    captured_j = server.capture_frac * electric_j
    stored_j = (steady_j(server, it_w) - held_j) * -expm1(-dt_s / server.tau_s)
    heat = ServerHeat(
        electric_j=electric_j,
        liquid_j=captured_j - stored_j,
        air_j=electric_j - captured_j,
        stored_j=stored_j,
    )
    return held_j + stored_j, heat
