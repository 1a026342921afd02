"""The official kaggle client, run as a subprocess, and the diagnosis of its failures.

A subprocess, because the client logs in on import. It exits with 0 after some failures, so its output is parsed.
"""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

SITE: Final = "https://www.kaggle.com"
_JOIN: Final = f"signed in as the token's owner, open {SITE}/competitions/{{competition}}/rules and accept the rules"
_FAILURES: Final = {  # pattern of the client's output, in order of priority, and what to do
    "client not installed": ("No module named", "it or a package that it needs is missing, install requirements.txt"),
    "no credentials": (
        "Authentication required|401 Client Error|Unauthenticated",
        f"none, or not valid: create a token at {SITE}/settings/api and export KAGGLE_API_TOKEN",
    ),
    "rules not accepted": (r"accept.{0,60}\brules", _JOIN),
    "daily limit": ("allowance|submission limit|number of submissions|Too Many Requests", "send it tomorrow (UTC)"),
    "competition closed": ("deadline|has ended|no longer accept|not accepting", "it accepts no submissions now"),
    "unknown competition": ("404 Client|Not Found|Could not find", f"expected NAME of {SITE}/competitions/NAME"),
    "refused": ("403 Client|Forbidden|Permission .*denied", f"no such competition, or not joined: {_JOIN}"),
    "upload failed": ("Could not submit to competition", "the service did not accept the file: try again later"),
    "service error": ("50[0-9] Server Error|Internal Server Error|Bad Gateway|Service Unavailable", "try again later"),
    "network down": ("ConnectionError|Max retries|Timeout|Connection re", "check the network and the proxy"),
}
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@|\?[^\s'\")]+|(?i:bearer|basic)\s+\S+|KGAT_\S+|eyJ\S+|\b[0-9a-f]{32,}\b")


class Failure(NamedTuple):
    """The reason why a call of the client failed."""

    status: str  # for the ledger
    what: str  # for the user
    fix: str = ""


def call(arguments: list[str], competition: str, seconds: float) -> tuple[str, Failure | None]:
    """Run the client; return its standard output, and the failure if its exit code is not 0."""
    command = [sys.executable, "-P", "-m", "kaggle", "competitions", *arguments]  # -P: ignore a local folder kaggle
    environment = os.environ | {"PYTHONUTF8": "1", "VERBOSE": "", "VERBOSE_OUTPUT": ""}  # it has credentials if verbose
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return "", Failure("timeout", f"timeout, no answer within {seconds:g} s", "check the network")
    printed, errors = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    return printed, diagnose(f"{printed}\n{errors}", competition) if done.returncode else None


def diagnose(printed: str, competition: str) -> Failure:
    """Classify a failure by the client's output."""
    lines = [line for line in re.split(r"[\r\n]+", printed) if line.strip() and "%|" not in line]  # progress bars
    lines = [line for line in lines if not line.startswith((" ", "Traceback")) and "remaining today" not in line]
    for status, (pattern, fix) in _FAILURES.items():
        if match := next((line for line in lines if re.search(pattern, line, re.IGNORECASE)), None):
            return Failure(status, f"{status} (client: {scrub(match)})", fix.format(competition=competition))
    return Failure("client failed", f"the client printed {scrub(lines[-1]) if lines else 'nothing'}")


def scrub(text: str) -> str:
    """Remove everything that could be a credential from a line, and shorten it."""
    secrets = [value for name, value in os.environ.items() if name.startswith("KAGGLE_")]
    named = (os.environ.get("XDG_CONFIG_HOME", "~/.config") + "/kaggle", os.environ.get("KAGGLE_CONFIG_DIR"))
    folders = [Path(folder).expanduser() for folder in ("~/.kaggle", *named) if folder]
    files = [path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_file()]
    for path in [*files, Path(os.environ.get("KAGGLE_API_TOKEN", ""))]:  # the token may name a file
        with contextlib.suppress(OSError):
            secrets += re.split(r"[\s\"',:{}\[\]]+", path.read_text(errors="replace"))
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***") if len(secret) >= 6 else text
    text = "".join(filter(str.isprintable, _CREDENTIALS.sub("***", text))).strip()
    return text if len(text) <= 180 else f"{text[:180]}..."
