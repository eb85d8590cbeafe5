"""Everything on one machine: the compose file is one, and what it starts is shut in and fits together."""

import re
from pathlib import PurePosixPath

import pytest

from monitor import __version__
from monitor import daemon as daemon_module
from tests.deploy.objects import COMPOSE, compose, in_compose, read
from tests.deploy.programs import CHECK_JSONSCHEMA, DEPLOY

SERVICES = compose()["services"]
SECRETS = compose()["secrets"]
SHUTDOWN_S = 2 * daemon_module._SHUTDOWN_S
CONFIGURATION = read(DEPLOY / "compose" / "bellwether.yaml")


def test_compose_takes_it(judge):
    judge(CHECK_JSONSCHEMA, "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_a_key_that_compose_does_not_know_is_refused(judge, tmp_path):
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text(encoding="utf-8").replace("stop_grace_period", "stop_grace"), encoding="utf-8")
    assert "stop_grace" in judge(CHECK_JSONSCHEMA, "--builtin-schema", "vendor.compose-spec", wrong, allowed=[1])


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())
def test_a_service_is_shut_in(service):
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service["user"].startswith("0")
    assert not {"privileged", "cap_add", "pid", "ipc", "network_mode", "devices"} & service.keys()
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())
def test_what_a_service_mounts_and_names_is_there(service):
    named = compose()["volumes"]
    for volume in service.get("volumes", []):
        outside, inside, *mode = volume.split(":")
        if outside.startswith("./"):
            assert (DEPLOY / outside).exists(), outside
            assert mode == ["ro"], "what comes from the repository is not written to"
        else:
            assert outside in named
        assert PurePosixPath(inside).is_absolute()
    assert set(service.get("secrets", [])) <= SECRETS.keys()
    assert set(service.get("networks", [])) <= compose()["networks"].keys()
    for name, wanted in service.get("depends_on", {}).items():
        assert wanted["condition"] in {"service_healthy", "service_completed_successfully"}
        assert "healthcheck" in SERVICES[name] or wanted["condition"] == "service_completed_successfully"


def test_every_service_that_stays_says_how_it_is():
    # The image of the monitor brings its own check; the topics are made once.
    assert {name for name, service in SERVICES.items() if "healthcheck" not in service} == {"monitor", "topics"}


def test_the_databases_reach_nobody_outside():
    assert compose()["networks"]["inside"]["internal"] is True
    for name in ("kafka", "topics", "postgres"):
        assert SERVICES[name]["networks"] == ["inside"]
        assert "ports" not in SERVICES[name]


def test_secrets_are_files_that_git_does_not_see():
    folder = DEPLOY / "compose" / "secrets"
    assert all(DEPLOY / secret["file"] == folder / name for name, secret in SECRETS.items())
    assert (folder / ".gitignore").read_text(encoding="utf-8").splitlines()[1:] == ["*", "!.gitignore"]
    assert set(SECRETS) == {name for service in SERVICES.values() for name in service.get("secrets", [])}
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN", name):
                assert name.endswith("_FILE"), name
                assert str(value).removeprefix("/run/secrets/") in service["secrets"]


def test_the_monitor_is_the_image_that_is_built_here_and_may_finish_what_it_began():
    monitor = SERVICES["monitor"]
    assert monitor["image"] == f"bellwether:{__version__}-{monitor['build']['target']}"
    assert (DEPLOY / monitor["build"]["context"] / monitor["build"]["dockerfile"]).is_file()
    assert int(monitor["stop_grace_period"].removesuffix("s")) > SHUTDOWN_S
    assert "container_name" not in monitor, "--scale needs names of its own"
    assert "ports" not in monitor, "two instances cannot have one port"


def test_topic_broker_and_scrape_are_those_of_the_configuration():
    kafka = CONFIGURATION["source"]["kafka"]
    made = SERVICES["topics"]["entrypoint"]
    assert [f"--topic={topic}" for topic in kafka["topics"]] == [item for item in made if item.startswith("--topic")]
    assert f"--bootstrap-server={kafka['bootstrap_servers'][0]}" in made
    assert f"PLAINTEXT://{kafka['bootstrap_servers'][0]}" == SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    (job,) = [item for item in read(DEPLOY / "compose" / "prometheus.yaml")["scrape_configs"] if item["job_name"] == "bellwether"]
    (found,) = job["dns_sd_configs"]
    assert (found["names"], found["port"]) == (["monitor"], CONFIGURATION["web"]["port"])


def test_the_dashboards_of_grafana_are_where_it_looks_for_them():
    mounts = dict(volume.split(":")[1::-1] for volume in SERVICES["grafana"]["volumes"])
    (provider,) = read(DEPLOY / "compose" / "grafana" / "dashboards" / "bellwether.yaml")["providers"]
    folder = DEPLOY / mounts[provider["options"]["path"]]
    home = PurePosixPath(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert (folder / home.name).is_file()


def test_the_monitor_finds_every_secret_that_its_configuration_names():
    text = "\n".join(in_compose().files.values())
    assert set(re.findall(r"/run/secrets/\S+", text)) == in_compose().secrets
