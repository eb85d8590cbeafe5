"""The page that says how to deploy: it leads to what is there, and forgets no secret."""

import re

from monitor import __version__
from tests.deploy.objects import compose, the
from tests.deploy.programs import DEPLOY

TEXT = (DEPLOY / "README.md").read_text(encoding="utf-8")


def test_what_it_links_to_is_there():
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT)
    assert targets
    for target in targets:
        assert (DEPLOY / target).exists(), target


def test_what_its_commands_name_is_there():
    named = set(re.findall(r"\bdeploy/[\w./-]*[\w-]", TEXT))
    assert {"deploy/Dockerfile", "deploy/compose.yaml", "deploy/kubernetes/overlays/cluster"} <= named
    for path in named:
        assert (DEPLOY.parent / path).exists(), path


def test_it_makes_every_secret_of_compose():
    (section,) = re.findall(r"^## Compose\n(.*?)^## ", TEXT, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"> ([\w-]+)$", section, re.MULTILINE)) == set(compose()["secrets"])


def test_it_makes_every_secret_of_the_cluster(cluster):
    made = set(re.findall(r"--from-file=([\w.-]+)", TEXT))
    mounted = set(re.findall(r"/run/secrets/bellwether/([\w.-]+)", str(cluster)))
    asked_by_keda = {item["key"] for item in the("TriggerAuthentication", cluster)["spec"]["secretTargetRef"]}
    assert made == mounted | asked_by_keda


def test_it_makes_every_credential_of_the_unit():
    lent = re.findall(r"^LoadCredential=[\w-]+:(\S+)$", (DEPLOY / "bellwether.service").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"> (/etc/bellwether/secrets/[\w-]+)$", TEXT, re.MULTILINE)) == set(lent)


def test_its_images_are_of_this_version():
    assert {tag.rpartition("-")[0] for tag in re.findall(r"bellwether:([\w.-]+)", TEXT)} == {__version__}


def test_it_knows_how_many_partitions_compose_makes():
    (partitions,) = [item.partition("=")[2] for item in compose()["services"]["topics"]["entrypoint"] if "--partitions" in item]
    assert f"The topic has {partitions} partitions" in TEXT
