"""Run plans over httpx, which is loaded with the first client."""

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import anyio.to_thread
import httpx

from linserve._config import find_config
from linserve._steps import Answer, Body, Call, Pause, Plan, Step
from linserve._version import VERSION
from linserve.errors import ConnectionFailed

T = TypeVar("T")

# The request did not reach the service.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
_LARGE_FACTOR = 10.0  # The response to a large body may take this many times the client's timeout.


class Address:
    """The address, the headers and the timeouts of all requests."""

    def __init__(self, url: str | None, api_key: str | None, timeout: float) -> None:
        found = find_config(url, api_key)
        assert found.url is not None
        if not found.url.startswith(("http://", "https://")):
            raise ValueError(f"{found.url!r} is not the address of a service. Write it as in http://127.0.0.1:8000.")
        self.url = found.url
        self.timeout = timeout
        self._headers = {"user-agent": f"linserve-python/{VERSION}"}
        if found.api_key is not None:
            self._headers["authorization"] = f"Bearer {found.api_key}"

    def request(self, call: Call) -> dict[str, Any]:
        """Return httpx's arguments for the call, without the body."""
        headers = {**self._headers, **call.headers}
        if (body := call.body) is not None:
            given = {"content-type": body.media_type, "content-encoding": body.encoding}
            given["content-length"] = None if body.length is None else str(body.length)
            headers |= {name: value for name, value in given.items() if value is not None}
        read = self.timeout if call.read_timeout is None else call.read_timeout
        if call.is_large:
            read = max(read, _LARGE_FACTOR * self.timeout)
        return {
            "method": call.method,
            "url": f"{self.url}{call.path}",
            "params": dict(call.params) or None,
            "headers": headers,
            "timeout": httpx.Timeout(self.timeout, read=read),
        }

    def failure(self, error: httpx.RequestError) -> ConnectionFailed:
        reason = str(error).rstrip(".") or type(error).__name__
        sent = not isinstance(error, _NOT_SENT)
        begin = "The connection to the service broke" if sent else "The service cannot be reached"
        if timed_out := isinstance(error, httpx.ReadTimeout):
            begin, reason = "The service did not respond", "the time limit has passed"
        return ConnectionFailed(f"{begin} at {self.url}: {reason}.", sent=sent, timed_out=timed_out)


def _headers(response: httpx.Response) -> Mapping[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _is_kept(call: Call, response: httpx.Response) -> bool:
    """Return True if the body of the response goes into the call's sink."""
    return response.is_success and (call.proof is None or call.proof in response.headers)


class Transport:
    """Runs plans in the calling thread."""

    def __init__(self, address: Address, http: httpx.Client | None) -> None:
        self._address = address
        self._owns = http is None
        self._http = http or httpx.Client()

    def run(self, plan: Plan[T]) -> T:
        """Return the result of the plan."""
        try:
            step = next(plan)
            while True:
                try:
                    answer = self._perform(step)
                except ConnectionFailed as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            plan.close()

    def _perform(self, step: Step) -> Answer | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        content = None if step.body is None else step.body.chunks()
        try:
            with self._http.stream(**self._address.request(step), content=content) as response:
                if step.sink is None or not _is_kept(step, response):
                    return Answer(response.status_code, _headers(response), response.read())
                step.sink.start()
                for chunk in response.iter_bytes():
                    if step.sink.feed(chunk):
                        break
                return Answer(response.status_code, _headers(response), b"")
        except httpx.RequestError as error:
            raise self._address.failure(error) from error

    def close(self) -> None:
        if self._owns:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncTransport:
    """Runs plans in an event loop. Files are read in threads."""

    def __init__(self, address: Address, http: httpx.AsyncClient | None) -> None:
        self._address = address
        self._owns = http is None
        self._http = http or httpx.AsyncClient()

    async def run(self, plan: Plan[T]) -> T:
        """Return the result of the plan."""
        try:
            step = next(plan)
            while True:
                try:
                    answer = await self._perform(step)
                except ConnectionFailed as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            plan.close()

    async def _perform(self, step: Step) -> Answer | None:
        if isinstance(step, Pause):
            await anyio.sleep(step.seconds)
            return None
        content = None if step.body is None else _in_thread(step.body)
        try:
            async with self._http.stream(**self._address.request(step), content=content) as response:
                if step.sink is None or not _is_kept(step, response):
                    return Answer(response.status_code, _headers(response), await response.aread())
                step.sink.start()
                async for chunk in response.aiter_bytes():
                    if step.sink.feed(chunk):
                        break
                return Answer(response.status_code, _headers(response), b"")
        except httpx.RequestError as error:
            raise self._address.failure(error) from error

    async def close(self) -> None:
        if self._owns:
            await self._http.aclose()


async def _in_thread(body: Body) -> AsyncIterator[bytes]:
    """Yield the bytes of the body, read in a thread."""
    chunks: Iterator[bytes] = body.chunks()
    while chunk := await anyio.to_thread.run_sync(next, chunks, b""):
        yield chunk
