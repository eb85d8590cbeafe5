"""What Kubernetes is told: valid, shut in, and true to how the daemon lives and dies."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from monitor import __version__
from monitor import daemon as daemon_module
from tests.deploy.objects import the
from tests.deploy.programs import IN_THE_TEST_EXTRA

SCHEMAS = Path(__file__).parent / "schemas"
OWN_KINDS = {"ScaledObject", "TriggerAuthentication"}
SHUTDOWN_S = 2 * daemon_module._SHUTDOWN_S
# A node under load needs more than a minute to load torch and the model.
SLOWEST_START_S = 180
OLDEST, NEWEST = "1.30", "1.37"


def pod(objects):
    return the("StatefulSet", objects)["spec"]["template"]["spec"]


def container(objects):
    (found,) = pod(objects)["containers"]
    return found


def configuration(objects):
    return yaml.safe_load(the("ConfigMap", objects)["data"]["bellwether.yaml"])


def keda_schema(kind):
    return json.loads((SCHEMAS / f"keda-{kind.lower()}-v1alpha1.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_every_object(objects, version):
    utils = pytest.importorskip("kubernetes_validate.utils", reason=f"kubernetes-validate is not installed; {IN_THE_TEST_EXTRA}")
    judged = [item for item in objects if item["kind"] not in OWN_KINDS]
    assert {"StatefulSet", "Service", "NetworkPolicy", "PodDisruptionBudget", "ConfigMap"} <= {item["kind"] for item in judged}
    for item in judged:
        utils.validate(item, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_refused(objects):
    utils = pytest.importorskip("kubernetes_validate.utils", reason=f"kubernetes-validate is not installed; {IN_THE_TEST_EXTRA}")
    wrong = copy.deepcopy(the("StatefulSet", objects))
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 60
    with pytest.raises(utils.ValidationError, match="terminationGracePeriod"):
        utils.validate(wrong, NEWEST, strict=True)


def test_the_pod_keeps_to_the_restricted_standard(objects):
    """Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/, and a read-only root above it."""
    outer, inner = pod(objects)["securityContext"], container(objects)["securityContext"]
    assert outer["runAsNonRoot"] is True
    assert outer["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inner["allowPrivilegeEscalation"] is False
    assert inner["capabilities"] == {"drop": ["ALL"]}
    assert inner["readOnlyRootFilesystem"] is True
    assert not inner["privileged"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod(objects).keys()
    claims = {item["metadata"]["name"] for item in the("StatefulSet", objects)["spec"].get("volumeClaimTemplates", [])}
    for volume in pod(objects)["volumes"]:
        assert {"configMap", "secret", "emptyDir"} & volume.keys()
    mounted = {mount["name"] for mount in container(objects)["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod(objects)["volumes"]} | claims
    assert the("Namespace", objects)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_only_the_data_and_tmp_can_be_written(objects):
    writable = {mount["mountPath"] for mount in container(objects)["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/var/lib/bellwether", "/tmp"}


def test_nobody_gets_a_token_of_the_cluster(objects):
    assert the("ServiceAccount", objects)["automountServiceAccountToken"] is False
    assert pod(objects)["automountServiceAccountToken"] is False
    assert pod(objects)["serviceAccountName"] == the("ServiceAccount", objects)["metadata"]["name"]


def test_secrets_are_named_and_never_held(objects):
    assert "Secret" not in {item["kind"] for item in objects}
    (volume,) = [item for item in pod(objects)["volumes"] if "secret" in item]
    assert volume["secret"]["secretName"] == "bellwether"
    assert volume["secret"]["defaultMode"] == 0o440


def test_the_pod_has_longer_to_end_than_the_daemon_takes(objects):
    assert pod(objects)["terminationGracePeriodSeconds"] > SHUTDOWN_S


def test_the_probes_wait_for_the_model_and_never_restart_a_pod_whose_broker_is_away(objects):
    found = container(objects)
    startup, live, ready = found["startupProbe"], found["livenessProbe"], found["readinessProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] >= SLOWEST_START_S
    assert startup["httpGet"]["path"] == live["httpGet"]["path"] == "/livez"
    assert ready["httpGet"]["path"] == "/readyz"
    (port,) = found["ports"]
    assert {probe["httpGet"]["port"] for probe in (startup, live, ready)} == {port["name"]}
    web = configuration(objects)["web"]
    assert (web["host"], web["port"]) == ("0.0.0.0", port["containerPort"])


def test_a_fixed_member_of_the_group_is_called_like_its_pod(objects):
    (member,) = [item for item in container(objects)["env"] if item["name"] == "BELLWETHER_SOURCE__KAFKA__GROUP_INSTANCE_ID"]
    assert member["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert the("StatefulSet", objects)["spec"]["podManagementPolicy"] == "Parallel"


def test_the_image_is_of_this_version(objects):
    name, tag = container(objects)["image"].split(":")
    assert name.endswith("bellwether")
    assert tag == f"{__version__}-cpu"


def test_whatever_selects_pods_selects_ours(objects):
    labels = the("StatefulSet", objects)["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        the("StatefulSet", objects)["spec"]["selector"]["matchLabels"],
        the("Service", objects)["spec"]["selector"],
        the("PodDisruptionBudget", objects)["spec"]["selector"]["matchLabels"],
        the("NetworkPolicy", objects)["spec"]["podSelector"]["matchLabels"],
        *(item["labelSelector"]["matchLabels"] for item in pod(objects).get("topologySpreadConstraints", [])),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels
    assert the("StatefulSet", objects)["spec"]["serviceName"] == the("Service", objects)["metadata"]["name"]
    assert the("Service", objects)["spec"]["clusterIP"] == "None"


def test_traffic_is_metrics_in_and_names_log_database_and_webhooks_out(objects, request):
    policy = the("NetworkPolicy", objects)["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (entrance,) = policy["ingress"]
    assert entrance["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert [port["port"] for port in entrance["ports"]] == ["metrics"]
    exits = {tuple(port["port"] for port in way["ports"]): way["to"] for way in policy["egress"]}
    kafka_port = int(configuration(objects)["source"]["kafka"]["bootstrap_servers"][0].rpartition(":")[2])
    database = {(5432,)} if "cluster" in request.node.callspec.id else set()
    assert exits.keys() == {(53, 53), (kafka_port,), (443,)} | database
    # A label of ours among those of the name servers would let no question through.
    assert exits[53, 53][0]["podSelector"] == {"matchLabels": {"k8s-app": "kube-dns"}}
    everywhere = next(peer["ipBlock"] for peer in exits[443,] if peer["ipBlock"]["cidr"] == "0.0.0.0/0")
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(everywhere["except"])


def test_a_node_can_always_be_emptied_and_never_of_more_than_one_pod_at_a_time(objects):
    assert the("PodDisruptionBudget", objects)["spec"]["maxUnavailable"] == 1


def test_one_pod_has_sqlite_on_a_volume_that_outlives_it(single):
    spec = the("StatefulSet", single)["spec"]
    (url,) = [item["value"] for item in container(single)["env"] if item["name"] == "BELLWETHER_STORE__URL"]
    (claim,) = spec["volumeClaimTemplates"]
    (mount,) = [item for item in container(single)["volumeMounts"] if item["name"] == claim["metadata"]["name"]]
    assert spec["replicas"] == 1
    assert url == f"sqlite:///{mount['mountPath']}/bellwether.db"
    assert spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"


# --- the cluster: KEDA -------------------------------------------------------------------------


def test_keda_takes_its_objects(cluster):
    for kind in OWN_KINDS:
        jsonschema.validate(the(kind, cluster), keda_schema(kind))


def test_a_field_that_keda_does_not_know_is_refused(cluster):
    wrong = copy.deepcopy(the("ScaledObject", cluster))
    wrong["spec"]["maxReplicas"] = wrong["spec"].pop("maxReplicaCount")
    with pytest.raises(jsonschema.ValidationError, match="maxReplicas"):
        jsonschema.validate(wrong, keda_schema("ScaledObject"))


def test_there_are_never_more_instances_than_partitions_nor_fewer_than_two(cluster):
    scaled = the("ScaledObject", cluster)
    partitions = int(scaled["metadata"]["annotations"]["bellwether/partitions"])
    assert 2 <= scaled["spec"]["minReplicaCount"] <= scaled["spec"]["maxReplicaCount"] <= partitions
    assert scaled["spec"]["minReplicaCount"] <= scaled["spec"]["fallback"]["replicas"] <= partitions
    (trigger,) = scaled["spec"]["triggers"]
    # With this KEDA itself asks for no more than there are partitions, whatever the annotation says.
    assert trigger["metadata"]["allowIdleConsumers"] == "false"


def test_keda_counts_the_lag_of_the_group_that_the_pods_are_in(cluster):
    kafka = configuration(cluster)["source"]["kafka"]
    (trigger,) = the("ScaledObject", cluster)["spec"]["triggers"]
    asked = trigger["metadata"]
    assert asked["bootstrapServers"] == ",".join(kafka["bootstrap_servers"])
    assert [asked["topic"]] == kafka["topics"]
    assert asked["consumerGroup"] == kafka["group_id"]
    assert asked["offsetResetPolicy"] == kafka.get("start", "earliest")
    assert (asked["tls"], asked["sasl"]) == ("enable", kafka["sasl_mechanism"].lower().replace("-", "_").replace("sha_", "sha"))
    assert trigger["authenticationRef"]["name"] == the("TriggerAuthentication", cluster)["metadata"]["name"]


def test_keda_scales_what_is_there_and_nobody_puts_the_number_back(cluster):
    target = the("ScaledObject", cluster)["spec"]["scaleTargetRef"]
    stateful_set = the("StatefulSet", cluster)
    assert (target["kind"], target["name"]) == (stateful_set["kind"], stateful_set["metadata"]["name"])
    assert "replicas" not in stateful_set["spec"]


def test_keda_reads_the_password_where_the_pods_read_it(cluster):
    references = the("TriggerAuthentication", cluster)["spec"]["secretTargetRef"]
    (volume,) = [item for item in pod(cluster)["volumes"] if "secret" in item]
    assert {reference["name"] for reference in references} == {volume["secret"]["secretName"]}
    keys = {reference["parameter"]: reference["key"] for reference in references}
    kafka = configuration(cluster)["source"]["kafka"]
    assert keys["password"] == Path(kafka["sasl_password_file"]).name
    assert keys["ca"] == Path(kafka["ssl_cafile"]).name
