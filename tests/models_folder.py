"""Models folders with versions of a line, intact and damaged."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from line import CARD, STATISTICS

from app.registry.base import ModelPublisher
from app.registry.version_file import Version
from app.regression.linear_model import LinearModel


def line(slope: float) -> LinearModel:
    return LinearModel(("x",), ("y",), np.array([[slope]]), np.zeros(1), STATISTICS, np.ones(1))


def slope(version: Version) -> float:
    return float(version.model.coef[0, 0])


def published(registry: ModelPublisher, *slopes: float, model: str = "line", promoted: int | None = None) -> None:
    for one in slopes:
        registry.publish(replace(CARD, model=model), line(one))
    if promoted is not None:
        registry.promote(model, promoted)


def file_of(folder: Path, number: int, model: str = "line") -> Path:
    return folder / model / f"{number:06d}.safetensors"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


def make_foreign(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 something else")


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


def refused_by_the_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


DAMAGES = pytest.mark.parametrize("damage", [truncate, flip_a_bit, make_foreign, make_empty, Path.unlink])


def everything_under(folder: Path) -> dict[str, bytes | str]:
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else "folder"
        for path in folder.rglob("*")
    }
