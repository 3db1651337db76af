"""What agent, aggregator and simulator have in common; they meet nowhere else."""

# The one place of the version: pyproject.toml reads it here. Asking the installed package would
# import email, zipfile and csv, 1.3 MB of an agent that must stay light.
__version__ = "0.1.0"
