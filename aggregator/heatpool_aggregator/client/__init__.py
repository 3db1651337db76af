"""The operator's command, which starts fast and says what goes wrong in one line."""

import os

# Read when grpc is imported: else a handshake that fails is told twice, once in gRPC's own words.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
