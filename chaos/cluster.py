"""Replicas and trainers that share one Postgres and one bucket, all of them killed or cut off at random."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
from buckets import Bucket, FaultyProxy
from postgres import Postgres
from service import INPUTS, ROOT, TARGETS, Service

from app.registry.version_file import Version
from chaos.acts import MODEL, Counts
from chaos.ledger import audit
from chaos.line import Ended, Line, Truth, Wrong
from chaos.stage import Environment
from chaos.store_audit import StoredVersions
from chaos.updates import MAX_ROWS, check_rows
from chaos.violation import Violation, demand

REPLICAS = TRAINERS = 3
UNDER_WAY = 20  # Jobs under way at a time.
MAX_BETWEEN = 6  # Most jobs that are submitted between two faults.
FAULT_SECONDS = 10.0  # Time for which the bucket answers 503.
END_SECONDS = 240.0  # Longest time in which no job ends.
ANSWER_SECONDS = 120.0  # Longest time until a request is accepted.
POLL_SECONDS = 0.05
EXTERNAL = {"LINSERVE_TRAINER_MODE": "external"}
