"""Settings of an aggregator that lets the agents of a run in where there is no TLS."""

from heatpool_sim.load.asked import Asked

SOURCE = "load"


def aggregator(asked: Asked, *, state_dir: str) -> str:
    """TOML with every agent as a member of one virtual source."""
    doors = asked.doors
    lines = [
        f'[listen]\ngrpc = "{doors.grpc}"\nhttp = "{doors.http or "127.0.0.1:8080"}"',
        f'[state]\ndir = "{state_dir}"',
        f"[live]\nmessage_period_s = {asked.period_s:g}",
        f'[[virtual_source]]\nid = "{SOURCE}"\nkind = "district_loop"',
        '[virtual_source.agreement]\nid = "HPA-LOAD"\nprice_eur_mwh = "30"',
    ]
    lines += [
        f'[[virtual_source.member]]\nsite_id = "{asked.site_id(number)}"'
        for number in range(asked.agents)
    ]
    return "\n\n".join(lines) + "\n"
