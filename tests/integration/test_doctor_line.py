"""Doctor at the line: a call that a gRPC server understands, and no handshake for nothing."""

import grpc
import grpc.aio

from heatpool_agent.doctor import network

grpc.aio.init_grpc_aio()


async def test_doctor_ends_its_look_with_a_call() -> None:
    heard: list[str] = []

    class Listener(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> None:
            heard.append(handler_call_details.method)

    server = grpc.aio.server(handlers=[Listener()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        found = await network._ask(f"http://127.0.0.1:{port}", None)
    finally:
        await server.stop(None)
    assert found is not None
    assert found.speaks_http2
    assert heard == ["/grpc.health.v1.Health/Check"]
