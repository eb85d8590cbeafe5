"""What the daemon is given where it is deployed: it accepts it, knows every variable, and nobody's secret is in it."""

import re
import subprocess
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from monitor.config import Settings
from tests.deploy.objects import in_compose
from tests.deploy.programs import BELLWETHER, DEPLOY, YAMLLINT, find
from tests.readme import model_of

TEXTS = sorted(path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".pyc")
VARIABLE = re.compile(r"\bBELLWETHER_([A-Z]+(?:_[A-Z]+)*(?:__[A-Z]+(?:_[A-Z]+)*)*)\b")
SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{8}|-----BEGIN|://[^/\s:@]+:(?!%s@|PASSWORD@)[^@\s]+@")


def test_the_daemon_accepts_what_it_is_given(installation, tmp_path):
    configuration, environment = installation.lay_out(tmp_path)
    checked = subprocess.run(
        [find(BELLWETHER), "check", configuration], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert re.search(r"ok: [1-9]\d* rules, [1-9]\d* watched entities, 1 receivers", checked.stderr)
    assert "made-up" not in checked.stdout + checked.stderr


def test_a_secret_that_is_missing_is_told(tmp_path):
    configuration, environment = in_compose().lay_out(tmp_path)
    (missing,) = (tmp_path / "secrets").rglob("risk-desk-url")
    missing.unlink()
    checked = subprocess.run(
        [find(BELLWETHER), "check", configuration], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert checked.returncode == 2
    assert "risk-desk-url" in checked.stderr


def known(path: list[str], model: type[BaseModel] = Settings) -> bool:
    """Whether a variable's parts lead to a setting."""
    field = model.model_fields.get(path[0])
    if field is None:
        return False
    inner, suffix = model_of(field)
    if len(path) == 1:
        return inner is None or bool(suffix)
    return inner is not None and not suffix and known(path[1:], inner)


def test_every_variable_is_a_setting():
    found = {}
    for path in TEXTS:
        for variable in VARIABLE.findall(path.read_text(encoding="utf-8")):
            found[variable] = path
    assert {"STORE__URL", "STORE__URL_FILE", "SOURCE__KAFKA__GROUP_INSTANCE_ID"} <= found.keys()
    for variable, path in found.items():
        assert known(variable.lower().split("__")), f"{path}: BELLWETHER_{variable}"


@pytest.mark.parametrize("name", ["SOURCE__KAFKA__GROUP_INSTANCE", "STORE", "STORE_URL", "STORE__URL__FILE", "STORES__URL"])
def test_a_variable_that_is_no_setting_is_found(name):
    assert not known(name.lower().split("__"))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_nobodys_secret_is_in_a_file(path):
    assert not SECRET.search(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "text", ["whsec_bWFkZSB1cA==", "postgresql://bellwether:hunter2@postgres/bellwether", "-----BEGIN PRIVATE KEY-----"]
)
def test_a_secret_would_be_found(text):
    assert SECRET.search(f"value: {text}")


def secrets_in(value: Any, key: str = "") -> list[str]:
    """Keys that are called like a secret and hold a text that is neither a path nor a name of a file."""
    if isinstance(value, dict):
        return [found for name, inner in value.items() for found in secrets_in(inner, str(name))]
    if isinstance(value, list):
        return [found for inner in value for found in secrets_in(inner, key)]
    told = re.search(r"(password|passwd|token|secret|api_?key)$", key, re.IGNORECASE)
    return [key] if told and isinstance(value, str) else []


@pytest.mark.parametrize("path", [path for path in TEXTS if path.suffix == ".yaml"], ids=lambda path: str(path.relative_to(DEPLOY)))
def test_no_key_that_is_called_like_a_secret_holds_one(path):
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        assert secrets_in(document) == []


def test_yaml_is_written_as_yaml_should_be(judge):
    judge(YAMLLINT, "--strict", "--config-file", DEPLOY / ".yamllint.yaml", DEPLOY)
