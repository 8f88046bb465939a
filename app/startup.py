"""What has to be right before anything is served."""

import logging

from app.permissions import why_unwritable
from app.settings import PREFIX, Settings, load
from app.web.auth import Authorizer

_log = logging.getLogger(__name__)


def load_config() -> tuple[Settings, Authorizer]:
    """The settings, their folders made, and the API keys.

    Raises ValueError, in a sentence for the operator that names the variable.
    """
    settings = load()
    # What others upload is nobody else's business; models are for whoever may read the folder above them.
    for name, folder, mode in (("MODELS_DIR", settings.models_dir, 0o777), ("STATE_DIR", settings.state_dir, 0o700)):
        try:
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{PREFIX}{name}: {folder} is no folder and cannot be made: {error.strerror}.") from None
    try:
        return settings, Authorizer(settings.api_keys_file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{PREFIX}API_KEYS_FILE: {error}") from None


def warn_of_unwritable_folders(settings: Settings) -> None:
    """Log why a folder cannot be written. Predictions need neither, so this does not end the service."""
    for name, folder in (("MODELS_DIR", settings.models_dir), ("STATE_DIR", settings.state_dir)):
        if reason := why_unwritable(folder):
            _log.warning("folder not writable", extra={"setting": f"{PREFIX}{name}", "reason": reason})
