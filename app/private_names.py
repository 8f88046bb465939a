"""Names of uvicorn, prometheus_client and DBOS that this service uses although they are not part of their interfaces.

Any release may change them, so pyproject.toml pins the minor, and each process checks at its start that they exist.
"""

import dis
import importlib
from collections.abc import Iterator
from importlib.metadata import version
from types import FunctionType

# By distribution: a module, or a class in it, and the names.
PRIVATE_NAMES = {
    "uvicorn": {
        "uvicorn.protocols.http.httptools_impl": "STATUS_LINE",
        "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol": (
            "_should_upgrade_to_ws _unset_keepalive_if_required access_log access_logger app app_state client "
            "connections cycle expect_100_continue flow headers loop on_body on_header on_headers_complete "
            "on_message_begin on_message_complete on_response_complete parser root_path scope server_state "
            "timeout_keep_alive timeout_keep_alive_handler timeout_keep_alive_task transport url"
        ),
        "uvicorn.protocols.http.httptools_impl:RequestResponseCycle": (
            "body disconnected keep_alive message_event more_body response_complete response_started transport"
        ),
        "uvicorn.protocols.http.flow_control:FlowControl": "pause_reading resume_reading write_paused",
        "uvicorn.middleware.proxy_headers:ProxyHeadersMiddleware": "trusted_hosts",
        "uvicorn.server:ServerState": "default_headers total_requests",
    },
    "prometheus_client": {"prometheus_client.metrics:Histogram": "_buckets _sum"},
    "dbos": {
        "dbos:DBOS": "_active_workflows_set _recover_pending_workflows _sys_db",
        "dbos._core:ActiveWorkflowById": "activeList",
        "dbos._queue": "queue_worker_thread",
        "dbos._serialization": "DefaultSerializer deserialize_args deserialize_exception deserialize_value",
        "dbos._sys_db:SystemDatabase": "reenqueue_for_recovery",
    },
}


def check_private_names(distribution: str) -> None:
    """Raise ImportError, in a sentence for the operator, if the installed release lacks one of the names."""
    if missing := list(_missing_names(distribution)):
        raise ImportError(
            f"{distribution} {version(distribution)} lacks {', '.join(missing)}, which this service uses. Install the "
            "release that constraints.txt names."
        )


def _missing_names(distribution: str) -> Iterator[str]:
    for place, names in PRIVATE_NAMES[distribution].items():
        module, _, owner = place.partition(":")
        try:
            holder = importlib.import_module(module)
            holder = getattr(holder, owner) if owner else holder
        except (ImportError, AttributeError):
            holder = None
        missing = [name for name in names.split() if not hasattr(holder, name)]
        if isinstance(holder, type):
            missing = _not_assigned(holder, missing)
        yield from (f"{place}.{name}" for name in missing)


def _not_assigned(owner: type, names: list[str]) -> list[str]:
    """Return the names that no method of the class assigns as an attribute."""
    for method in vars(owner).values():
        if names and isinstance(method, FunctionType):
            assigned = {step.argval for step in dis.get_instructions(method) if step.opname == "STORE_ATTR"}
            names = [name for name in names if name not in assigned]
    return names
