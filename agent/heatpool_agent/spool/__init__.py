"""The agent's queue on disk: frames under gap-free numbers, in two SQLite files.

Begin with `sqlite`, the whole as others see it. What lies around it:

- `file`: one file with its numbers, frames and losses; `frames`: a frame as bytes on disk;
- `telemetry`: rows that become frames; `billing`: registers and their chain; `ledger`: energies;
- `room`: what goes when there is no room; `heal`: what is done with a damaged file;
- `state`: the files looked at beside a running agent.
"""

from heatpool_agent.spool.sqlite import SqliteSpool as SqliteSpool
