"""What the sensors of a server show: power by its parts, energies, temperatures, fans."""

from dataclasses import dataclass

from heatpool_sim.plant.feed import Feed, feed
from heatpool_sim.plant.noise import between, normal
from heatpool_sim.plant.site import Plant, SiteState

_NOISE_FRAC = 0.002
_CPU_RISE_K, _GPU_RISE_K = 22.0, 30.0  # chip above its coolant, at full load
_EXHAUST_RISE_K = 14.0
_LINE_V = 230.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerGauges:
    """The readings; energies count on with the plant's time."""

    shown: Feed
    electric_wh: float
    input_wh: tuple[float, ...]
    rated_w: float
    line_v: float
    cpu_c: tuple[float, ...]
    gpu_c: tuple[float, ...]
    cold_air_c: float
    hot_air_c: float
    fan_frac: float


def server_gauges(plant: Plant, state: SiteState, *, power_frac: float = 1.0) -> ServerGauges:
    """What the server shows now; the same instant shows the same figures.

    `power_frac` is what its power meters show of the power, beside errors of their own.
    """
    seed, at_ns = f"{plant.seed}/server", state.at_ns
    true = true_feed(plant, state)
    full_w = plant.exchanger.capacity_w
    load_frac = min(state.electric_w / full_w, 1.0)
    before_wh = between(1e6, 5e7, seed=f"{seed}/energy")
    shares = tuple(part / max(true.electric_w, 1e-9) for part in true.input_w)
    counted_wh = (before_wh + state.electric_j / 3600.0) * _scale(f"{seed}/energy")
    cold_air_c = plant.loop.room_c + 0.1 * normal(f"{seed}/inlet", at_ns)
    return ServerGauges(
        shown=_shown(true, seed, at_ns, power_frac=power_frac),
        electric_wh=counted_wh,
        input_wh=tuple(share * counted_wh for share in shares),
        rated_w=round(0.8 * full_w, -1),  # each; one alone does not carry the full load
        line_v=_LINE_V + 1.5 * normal(f"{seed}/line", at_ns),
        cpu_c=_chips(f"{seed}/cpu", state, true.cpu_w, rise_k_w=_CPU_RISE_K / (0.13 * full_w)),
        gpu_c=_chips(f"{seed}/gpu", state, true.gpu_w, rise_k_w=_GPU_RISE_K / (0.15 * full_w)),
        cold_air_c=cold_air_c,
        hot_air_c=cold_air_c + _EXHAUST_RISE_K * load_frac / fan_frac(load_frac),
        fan_frac=fan_frac(load_frac),
    )


def true_feed(plant: Plant, state: SiteState) -> Feed:
    """How the power divides in truth, W; no sensor shows it."""
    seed = f"{plant.seed}/server"
    return feed(plant.server, state.electric_w, seed=seed, at_ns=state.at_ns)


def fan_frac(load_frac: float) -> float:
    """Speed of the fans, 0..1, at a load of 0..1."""
    return 0.3 + 0.6 * load_frac


def _shown(true: Feed, seed: str, at_ns: int, *, power_frac: float) -> Feed:
    """Each meter has an error of its own: what is shown no longer adds up to the last watt."""

    def many(name: str, parts_w: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(one(f"{name}{i}", part_w) for i, part_w in enumerate(parts_w))

    def one(name: str, part_w: float) -> float:
        noise = _NOISE_FRAC * normal(f"{seed}/{name}/noise", at_ns)
        return part_w * power_frac * _scale(f"{seed}/{name}") * (1.0 + noise)

    return Feed(
        input_w=many("in", true.input_w),
        output_w=many("out", true.output_w),
        cpu_w=many("cpu", true.cpu_w),
        gpu_w=many("gpu", true.gpu_w),
        memory_w=one("memory", true.memory_w),
        board_w=one("board", true.board_w),
        fan_w=one("fan", true.fan_w),
    )


def _scale(seed: str) -> float:
    return between(0.995, 1.005, seed=f"{seed}/scale")


def _chips(
    seed: str, state: SiteState, parts_w: tuple[float, ...], *, rise_k_w: float
) -> tuple[float, ...]:
    cold_c, at_ns = state.loop.cold_c, state.at_ns
    return tuple(
        cold_c + rise_k_w * part_w + 0.4 * normal(f"{seed}{i}", at_ns)
        for i, part_w in enumerate(parts_w)
    )
