"""The doors for machines: gRPC, its services and who may call them."""

# For GRPC_EXPERIMENTS, which is read when gRPC is imported. The newer way of waiting for streams
# hands each event to a thread of its own: a sixth of all CPU is for that.
GRPC_POLLING = "-event_engine_listener"
