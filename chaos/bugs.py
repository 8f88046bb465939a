"""The planted bugs: what each changes in the service, and the phase that must notice."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from chaos import phases
from chaos.phases import Counts
BUGS: list = []
Bug = object
