"""The site's own face: page, status, metrics and health, read from the board and nothing else."""

from heatpool_agent.http.app import serve as serve
