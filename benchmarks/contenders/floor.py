"""The floor: a bare ASGI application that reads the body and responds with FLOOR_ANSWER fixed bytes."""

import os

ANSWER = b"x" * int(os.environ["FLOOR_ANSWER"])
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))],
}
BODY = {"type": "http.response.body", "body": ANSWER}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    b"".join(parts)
    await send(START)
    await send(BODY)
