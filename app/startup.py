"""Checks of the configuration, before anything is served."""

import logging
import os

from app.permissions import why_unwritable
from app.settings import PREFIX, Settings, load
from app.web.auth import Authorizer
from app.web.path_aliases import vertex_aliases

_log = logging.getLogger(__name__)


def load_config() -> tuple[Settings, Authorizer]:
    """Return the settings and the API keys, and create the folders that the settings name.

    Raises ValueError, in a sentence for the operator that names the variable.
    """
    settings = load()
    vertex_aliases(os.environ)
    # Uploads are private. Models are readable by everybody who may read the folder above them.
    for name, folder, mode in (("MODELS_DIR", settings.models_dir, 0o777), ("STATE_DIR", settings.state_dir, 0o700)):
        try:
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:
            reason = f"{folder} is not a folder and cannot be created: {error.strerror}."
            raise ValueError(f"{PREFIX}{name}: {reason}") from None
    try:
        return settings, Authorizer(settings.api_keys_file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{PREFIX}API_KEYS_FILE: {error}") from None


def warn_of_unwritable_folders(settings: Settings) -> None:
    """Log why a folder cannot be written. Predictions write to neither, so the service still starts."""
    for name, folder in (("MODELS_DIR", settings.models_dir), ("STATE_DIR", settings.state_dir)):
        if reason := why_unwritable(folder):
            _log.warning("folder not writable", extra={"setting": f"{PREFIX}{name}", "reason": reason})
