"""Bodies of strangers: read up to a size, within a time, and not at all where both are unsaid."""

import asyncio
from http import HTTPStatus

from aiohttp import web

from heatpool_aggregator.web.problem import Refused

BODY_S = 10.0


async def read_body(request: web.Request, *, bytes_limit: int) -> bytes:
    """The whole body.

    Raises:
        Refused: it is too long, too slow, or not what its headers say.
    """
    if (request.content_length or 0) > bytes_limit:
        raise _too_long(bytes_limit)
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.content.iter_any():
                data += part
                if len(data) > bytes_limit:
                    raise _too_long(bytes_limit)
    except TimeoutError as error:
        raise Refused(
            HTTPStatus.REQUEST_TIMEOUT, f"the body did not come within {BODY_S:g} s"
        ) from error
    except web.RequestPayloadError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, "the body is not what its headers say") from error
    return bytes(data)


def _too_long(bytes_limit: int) -> Refused:
    text = f"the body is longer than {bytes_limit} bytes"
    return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
