"""What a loop showed over one span, and what is assumed of it: the inputs of every estimator."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSample:
    """Means over the span that ends now; None is absent.

    `span_s` is the time since the sample before; 0 for the first. `power_w` is electric power at
    the wall that warms this loop.
    """

    span_s: float
    power_w: float | None = None
    volume_flow_m3_h: float | None = None
    hot_c: float | None = None
    cold_c: float | None = None
    ambient_c: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopModel:
    """What is assumed of one loop until its own data say better.

    No nominal power, flow, temperature or heat capacity is among them: a site does not know these.
    `_u` are standard uncertainties of constants (biases), `noise` is what differs from sample to
    sample. The source of each default: `data/loop_priors.toml`.
    """

    fluid: str = "water"
    sensor_side: str = "cold"
    # Heat into the coolant over electric power; u of meter and capture together, relative.
    capture_frac: float = 0.75
    gain_u_frac: float = 0.025
    power_noise_frac: float = 0.01
    flow_u_frac: float = 0.012
    # The same of a small flow, whatever its size: added to the relative one.
    flow_u_m3_h: float = 0.0
    flow_noise_frac: float = 0.015
    delta_k_u: float = 0.05
    temp_noise_k: float = 0.02
    # The loop's thermal time constant C/G, and how many e-folds it may be off.
    tau_s: float = 90.0
    tau_ln_u: float = 0.7
    # Loss to the room over the heat rate, one-sided by nature: mean and u.
    loss_frac: float = 0.02
    loss_frac_u: float = 0.02
    sensor_lag_s: float = 8.0
    # Water needs this long from the IT to the sensors.
    delay_s: float = 20.0
    delay_s_u: float = 15.0
