"""Tests of the pages. A package, so that its fixtures end with its last test: asyncio cannot run beside the browser."""
