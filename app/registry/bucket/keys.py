"""The keys of the registry in a store.

models/crop-yield/000001.safetensors      one immutable file per version
models/crop-yield/pointer                 which versions there are, and which is current
models/crop-yield/uploads/4f1c...         the version that was published for this upload

All of them are in one place, so that readers, publishers and copies agree.
"""

import hashlib
import re

MODELS = "models/"
MAX_VERSION = 10**12  # Numbers of versions are below this one.

VERSION_FILE = re.compile(r"(\d{6,12})\.safetensors")
_UPLOAD = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,127}")


def pointer_key(model: str) -> str:
    """Return the key of the model's pointer."""
    return f"{MODELS}{model}/pointer"


def version_key(model: str, number: int) -> str:
    """Return the key of the version's file."""
    return f"{MODELS}{model}/{number:06d}.safetensors"


def marker_key(model: str, upload: str) -> str:
    """Return the key of the blob that names the version which was published for this upload."""
    name = upload if _UPLOAD.fullmatch(upload) else hashlib.sha256(upload.encode()).hexdigest()
    return f"{MODELS}{model}/uploads/{name}"
