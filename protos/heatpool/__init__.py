"""What agent, aggregator and simulator have in common; they meet nowhere else."""

__version__ = "0.1.0"  # the one place of it: pyproject.toml reads it here
