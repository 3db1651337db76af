"""Where the electric power of the computers goes: supplies, processors, memory, fans."""

from dataclasses import dataclass

from heatpool_sim.plant.noise import between, wander
from heatpool_sim.plant.server import Server

CPUS, GPUS, SUPPLIES = 2, 4, 2
_LOSS_SHARE = 0.55  # of what is used on top of the IT load: lost in the supplies; fans use the rest
GPU_SHARE = 0.15
_WEIGHTS = {
    "cpu": 0.13,
    "gpu": GPU_SHARE,
    "memory": 0.08,
}  # of the IT load, each; the board has the rest
_MIX_NS = 30 * 10**9  # work moves between the chips


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Electric power of a server, W: in = out + loss; out = chips + memory + board + fans."""

    input_w: tuple[float, ...]
    output_w: tuple[float, ...]
    cpu_w: tuple[float, ...]
    gpu_w: tuple[float, ...]
    memory_w: float
    board_w: float
    fan_w: float

    @property
    def electric_w(self) -> float:
        """All that the supplies take, W."""
        return sum(self.input_w)


def feed(server: Server, electric_w: float, *, seed: str, at_ns: int) -> Feed:
    """How the power at the feed divides at this instant; the parts add up to it."""
    it_w = electric_w / (1.0 + server.overhead_frac)
    loss_w = _LOSS_SHARE * (electric_w - it_w)
    parts_w = _split(it_w, seed=seed, at_ns=at_ns)
    first_frac = between(0.48, 0.52, seed=f"{seed}/supplies")
    shares = (first_frac, 1.0 - first_frac)
    return Feed(
        input_w=tuple(share * electric_w for share in shares),
        output_w=tuple(share * (electric_w - loss_w) for share in shares),
        cpu_w=tuple(parts_w[f"cpu{index}"] for index in range(CPUS)),
        gpu_w=tuple(parts_w[f"gpu{index}"] for index in range(GPUS)),
        memory_w=parts_w["memory"],
        board_w=parts_w["board"],
        fan_w=electric_w - it_w - loss_w,
    )


def _split(it_w: float, *, seed: str, at_ns: int) -> dict[str, float]:
    names = [*(f"cpu{i}" for i in range(CPUS)), *(f"gpu{i}" for i in range(GPUS)), "memory"]
    parts_w = {}
    for name in names:
        moved = 0.05 * wander(f"{seed}/{name}", at_ns, every_ns=_MIX_NS)
        parts_w[name] = it_w * _WEIGHTS[name.rstrip("0123456789")] * (1.0 + moved)
    # Chance may ask for more than there is; the board never gets less than 2 %.
    excess = max(sum(parts_w.values()) / it_w / 0.98, 1.0) if it_w else 1.0
    parts_w = {name: part_w / excess for name, part_w in parts_w.items()}
    return {**parts_w, "board": it_w - sum(parts_w.values())}
