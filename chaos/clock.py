"""A wall clock that jumps, for one service: the C library's clock, shifted by an offset in a file."""

import shutil
import struct
import subprocess
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

from service import Service

from chaos.violation import Unable

HOUR, DAY, YEAR = 3600, 86_400, 31_556_952
JUMPS = [-HOUR, HOUR, 0, 2 * DAY, -2 * DAY, 5 * YEAR, 0, -30 * DAY]  # Offsets from the true time, in seconds.
SEEN_SECONDS = 60.0  # Longest time until the service shows the shifted time.


class Clock:
    def __init__(self, folder: Path) -> None:
        """Build the clock. Raises Unable if there is no C compiler."""
        folder.mkdir(parents=True, exist_ok=True)
        self._offset = folder / "clock"
        self._offset.write_bytes(struct.pack("q", 0))
        library = folder / "clock.so"
        compiler = shutil.which("cc")
        if compiler is None:
            raise Unable("there is no C compiler to build the clock")
        source = Path(__file__).with_name("clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self._offset)}
        self._jumped = 0

    def jump(self, seconds: int) -> None:
        """Move the clock of all processes of the service at once, including running ones."""
        with self._offset.open("r+b") as file:
            file.write(struct.pack("q", seconds))
        self._jumped = seconds

    def is_seen_by(self, service: Service) -> bool:
        """Return True if the Date header, which uvicorn updates every second, follows within SEEN_SECONDS."""
        until = time.monotonic() + SEEN_SECONDS
        while time.monotonic() < until:
            date = parsedate_to_datetime(service.client.get("/health/live").headers["date"])
            if abs(date.timestamp() - time.time() - self._jumped) < SEEN_SECONDS:
                return True
            time.sleep(0.1)
        return False
