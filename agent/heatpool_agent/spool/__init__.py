"""The agent's queue on disk: frames under gap-free numbers, in two SQLite files.

Begin with `sqlite`, the whole as others see it. What lies around it:

- `file`: one file with its numbers, frames and losses; `frames`: a frame as bytes on disk;
  `tables`: what the files are made of; `twin`: what each notes of the other;
- `telemetry`: rows that become frames; `billing`: registers and their chain; `ledger`: energies;
- `room`: what goes when there is no room; `reserve`: room kept for billing;
- `heal`: a damaged file made anew by `healing`, with what `salvage` can read of it, put in place by
  `swap`; `sound` says whether it is damaged;
- `beyond`: what goes on under other numbers after a file that was cut short;
- `aside`: what is put away when its site takes another name;
- `late`: what stands for all this while the disk refuses at the start;
- `state`: the files looked at beside a running agent.
"""

from heatpool_agent.spool.heal import heal_folder as heal_folder
from heatpool_agent.spool.late import LateSpool as LateSpool
from heatpool_agent.spool.sqlite import SqliteSpool as SqliteSpool
