"""A certificate for a name, signed by itself."""

import subprocess
from pathlib import Path


def self_signed(folder: Path, name: str) -> Path:
    """Writes `certificate.pem` and `key.pem` for that name; the folder."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
         "-keyout", folder / "key.pem", "-out", folder / "certificate.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder
