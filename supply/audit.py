"""Known vulnerabilities of all packages in constraints.txt, where a service that knows them can be reached."""

import json
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
# In the errors of pip-audit and of requests beneath it.
OUT_OF_REACH = ("ConnectionError", "ConnectTimeout", "HTTPError", "ProxyError", "ReadTimeout", "ServiceError")


def main() -> None:
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(CONSTRAINTS), "--no-deps", "--disable-pip"]
    command += ["--vulnerability-service", "osv", "--timeout", "5", "--format", "json", "--progress-spinner", "off"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode == 0:
        return
    if not ended.stdout and any(sign in ended.stderr for sign in OUT_OF_REACH):
        sys.stdout.write("pip-audit not run: the service that knows vulnerabilities cannot be reached\n")
        return
    sys.exit(findings(ended.stdout) or ended.stderr)


def findings(report: str) -> str:
    """A line for each vulnerability."""
    packages = json.loads(report or '{"dependencies": []}')["dependencies"]
    return "\n".join(
        f"{one['name']} {one['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'no version'}"
        for one in packages
        for found in one.get("vulns", [])
    )


if __name__ == "__main__":
    main()
