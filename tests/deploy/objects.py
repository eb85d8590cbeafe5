"""What is deployed, read from its files: the services of compose, the objects of each overlay, the stages of the image."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.programs import DEPLOY, KUBECTL, run

COMPOSE = DEPLOY / "compose.yaml"
OVERLAYS = sorted(path.name for path in (DEPLOY / "kubernetes" / "overlays").iterdir())
SECRETS = Path("/run/secrets")


def read(path: Path) -> Any:
    """The content of a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@cache
def compose() -> dict[str, Any]:
    """The compose file, its merge keys merged."""
    return read(COMPOSE)


@cache
def built(overlay: str) -> tuple[dict[str, Any], ...]:
    """The objects of an overlay as kubectl would send them. Raises ProgramAbsent."""
    done = run(KUBECTL, "kustomize", DEPLOY / "kubernetes" / "overlays" / overlay)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def the(kind: str, objects: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """The one object of a kind."""
    (found,) = [item for item in objects if item["kind"] == kind]
    return found


@dataclass(frozen=True, slots=True)
class Installation:
    """What a daemon finds where it is deployed: its files by path, its variables, and where secrets are mounted."""

    files: Mapping[str, str]
    variables: Mapping[str, str]
    secrets: frozenset[str]

    def lay_out(self, folder: Path) -> tuple[Path, dict[str, str]]:
        """The same under `folder`, with secrets made up: the configuration's path there, and the environment to run in."""

        def moved(text: str) -> str:
            return text.replace(str(SECRETS), str(folder / "secrets")).replace("/etc/bellwether", str(folder / "etc"))

        for path, text in self.files.items():
            target = Path(moved(path))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(moved(text), encoding="utf-8")
        for path in self.secrets:
            target = Path(moved(path))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(made_up(target.name), encoding="utf-8")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BELLWETHER_")}
        return folder / "etc" / "bellwether.yaml", clean | {name: moved(value) for name, value in self.variables.items()}


def made_up(name: str) -> str:
    """A secret of the form that its name asks for; nobody has ever used it."""
    if name.endswith("store-url"):
        return "postgresql://bellwether:made-up@postgres/bellwether\n"
    if name.endswith("-url"):
        return "https://desk.example/hook\n"
    return "whsec_" + "bWFkZSB1cCwgYW5kIHRoZXJlZm9yZSBubyBzZWNyZXQ=\n"


def in_compose() -> Installation:
    """The monitor of compose.yaml."""
    service = compose()["services"]["monitor"]
    mounts = (volume.split(":")[:2] for volume in service["volumes"])
    files = {inside: (DEPLOY / outside).read_text(encoding="utf-8") for outside, inside in mounts}
    return Installation(files, service.get("environment", {}), frozenset(str(SECRETS / name) for name in service["secrets"]))


def in_kubernetes(overlay: str) -> Installation:
    """A pod of an overlay. Raises ProgramAbsent."""
    objects = built(overlay)
    pod = the("StatefulSet", objects)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {item["name"]: item.get("value", "bellwether-0") for item in container["env"]}
    files = {f"/etc/bellwether/{name}": text for name, text in the("ConfigMap", objects)["data"].items()}
    mentioned = "\n".join([*files.values(), *variables.values()]).split()
    return Installation(files, variables, frozenset(word for word in mentioned if word.startswith(str(SECRETS))))
