"""What of the chart matters for security: expectations that a change must not pass by unseen."""

import copy
import unittest

import rendering
from restricted import violations


class PodSecurity(unittest.TestCase):
    def test_every_pod_keeps_to_restricted(self):
        for name in rendering.EXAMPLES:
            pods = rendering.pods(rendering.render(rendering.example(name)))
            self.assertEqual(len(pods), 4, name)
            for pod, spec in pods.items():
                with self.subTest(name, pod=pod):
                    self.assertEqual(violations(spec), [])

    def test_the_checks_find_what_they_are_for(self):
        good = rendering.pods(rendering.render(rendering.example("minimal")))
        good = good["Deployment/rel-colophon-server"]

        def container(key, value):
            return lambda pod: pod["containers"][0].__setitem__(key, value)

        def security(key, value):
            return lambda pod: pod["containers"][0]["securityContext"].__setitem__(key, value)

        def of_pod(key, value):
            return lambda pod: pod["securityContext"].__setitem__(key, value)

        spoiled = {
            "host namespaces": lambda pod: pod.__setitem__("hostNetwork", True),
            "hostPath volumes": lambda pod: pod["volumes"].append({"name": "x", "hostPath": {}}),
            "volume types": lambda pod: pod["volumes"].append({"name": "x", "nfs": {}}),
            "sysctls": of_pod("sysctls", [{"name": "kernel.msgmax", "value": "1"}]),
            "HostProcess": of_pod("windowsOptions", {"hostProcess": True}),
            "privileged": security("privileged", True),
            "privilege escalation": lambda pod: pod["containers"][0]["securityContext"].pop(
                "allowPrivilegeEscalation"),
            "capabilities": security("capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
            "host ports": container("ports", [{"containerPort": 1, "hostPort": 1}]),
            "/proc mount type": security("procMount", "Unmasked"),
            "running as non-root": of_pod("runAsNonRoot", False),
            "running as non-root user": of_pod("runAsUser", 0),
            "seccomp": lambda pod: pod["securityContext"].pop("seccompProfile"),
            "AppArmor": security("appArmorProfile", {"type": "Unconfined"}),
            "SELinux": security("seLinuxOptions", {"type": "spc_t"}),
            "host probes and lifecycle hooks": container(
                "livenessProbe", {"httpGet": {"host": "10.0.0.1", "port": 1}}),
        }
        for control, spoil in spoiled.items():
            with self.subTest(control):
                pod = copy.deepcopy(good)
                spoil(pod)
                found = {violation.split(":")[0] for violation in violations(pod)}
                self.assertIn(control, found)
        pod = copy.deepcopy(good)
        pod["initContainers"] = [{"name": "bare"}]
        self.assertTrue(all("bare" in violation for violation in violations(pod)))
        self.assertEqual(len(violations(pod)), 2)

    def test_beyond_the_standard(self):
        for name in rendering.EXAMPLES:
            for pod, spec in rendering.pods(rendering.render(rendering.example(name))).items():
                with self.subTest(name, pod=pod):
                    self.assertIs(spec["automountServiceAccountToken"], False)
                    self.assertIs(spec["enableServiceLinks"], False)
                    self.assertNotIn("initContainers", spec)
                    for container in spec["containers"]:
                        self.assertIs(container["securityContext"]["readOnlyRootFilesystem"], True)
                        self.assertTrue(all(m["readOnly"] for m in container["volumeMounts"]))
                        self.assertIn("memory", container["resources"]["limits"])
                        # Whatever is secret comes as a file.
                        self.assertFalse({"env", "envFrom"} & set(container))
                    user = spec["securityContext"].get("runAsUser")
                    self.assertEqual(user, None if name == "self-hosted" else 65532)


class Secrets(unittest.TestCase):
    def test_no_secret_is_made_of_values(self):
        for name in rendering.EXAMPLES:
            kinds = {document["kind"] for document in rendering.render(rendering.example(name))}
            self.assertFalse(kinds & {"Secret", "Role", "ClusterRole", "RoleBinding",
                                      "ClusterRoleBinding"})

    def volumes(self, name, pod):
        spec = rendering.pods(rendering.render(rendering.example(name)))[pod]
        return {volume["name"]: volume for volume in spec["volumes"]}

    def test_production_mounts_what_it_needs_and_nothing_else(self):
        database = {"secret": {"name": "colophon-database",
                               "items": [{"key": "url", "path": "database-url"}]}}
        token = {"serviceAccountToken": {"path": "vault-service-account",
                                         "audience": "vault.corp.lan", "expirationSeconds": 600}}
        headers = {"secret": {"name": "colophon-collector",
                              "items": [{"key": "headers", "path": "otlp-headers"}]}}
        authority = {"configMap": {"name": "corp-ca",
                                   "items": [{"key": "ca.crt", "path": "ca/corp.pem"}]}}
        for component in ["server", "worker"]:
            volumes = self.volumes("production", f"Deployment/rel-colophon-{component}")
            self.assertEqual(set(volumes), {"config", "secrets"})
            self.assertEqual(volumes["secrets"]["projected"],
                             {"defaultMode": 0o440, "sources": [database, token, headers]})
            self.assertEqual(volumes["config"]["projected"]["sources"][1:], [authority])
        # Whoever only changes the schema cannot log in to Vault.
        volumes = self.volumes("production", "Job/rel-colophon-migrate")
        self.assertEqual(volumes["secrets"]["projected"]["sources"], [database])
        self.assertEqual(volumes["config"]["projected"]["sources"][1:], [authority])

    def test_without_kubernetes_login_there_is_no_token_of_the_account(self):
        for name in set(rendering.EXAMPLES) - {"production"}:
            text = str(rendering.pods(rendering.render(rendering.example(name))))
            self.assertNotIn("serviceAccountToken'", text, name)
        volumes = self.volumes("workers", "Deployment/rel-colophon-worker")
        self.assertEqual(
            volumes["secrets"]["projected"]["sources"][1],
            {"secret": {"name": "colophon-vault",
                        "items": [{"key": "secret-id", "path": "vault-secret-id"}]}},
        )

    def test_a_certificate_for_vault_comes_as_files(self):
        values = rendering.example("production")
        values["vault"]["clientSecret"] = {"name": "colophon-vault-client"}
        values["config"]["vault"]["auth"]["method"] = "jwt"
        documents = rendering.render(values)
        vault = rendering.config(documents)["vault"]
        files = [vault["client_cert_file"], vault["client_key_file"], vault["auth"]["token_file"]]
        self.assertEqual(vault["auth"]["audience"], "vault.corp.lan")
        pods = rendering.pods(documents)
        for pod in ["Deployment/rel-colophon-server", "Deployment/rel-colophon-worker"]:
            sources = pods[pod]["volumes"][1]["projected"]["sources"]
            self.assertEqual(sources[2]["secret"]["name"], "colophon-vault-client")
            there = [item["path"] for item in sources[2]["secret"]["items"]]
            there.append(sources[1]["serviceAccountToken"]["path"])
            self.assertEqual([f"{rendering.SECRETS}/{path}" for path in there], files)
        self.assertNotIn("vault", str(pods["Job/rel-colophon-migrate"]))

    def test_the_account_has_no_token_by_default(self):
        account = rendering.find(
            rendering.render(rendering.example("minimal")), "ServiceAccount", "rel-colophon")
        self.assertIs(account["automountServiceAccountToken"], False)


class Network(unittest.TestCase):
    def policies(self, values):
        return {
            document["metadata"]["name"].removeprefix("rel-colophon-"): document["spec"]
            for document in rendering.render(values)
            if document["kind"] == "NetworkPolicy"
        }

    @staticmethod
    def allowed(rules):
        """Ports, and to whom they lead; `any` where nobody is named."""
        return [
            ([port["port"] for port in rule["ports"]], rule.get("to", rule.get("from", "any")))
            for rule in rules
        ]

    def test_every_pod_has_a_policy_for_both_directions(self):
        for name in rendering.EXAMPLES:
            documents = rendering.render(rendering.example(name))
            policies = self.policies(rendering.example(name))
            for policy in policies.values():
                self.assertEqual(policy["policyTypes"], ["Ingress", "Egress"])
            covered = [policy["podSelector"]["matchLabels"] for policy in policies.values()]
            for document in documents:
                if document["kind"] in rendering.POD_KINDS:
                    labels = document["metadata" if document["kind"] == "Pod" else "spec"]
                    labels = labels.get("template", {}).get("metadata", labels)["labels"]
                    fitting = [c for c in covered if c.items() <= labels.items()]
                    self.assertEqual(len(fitting), 1, document["metadata"]["name"])

    def test_production_reaches_what_was_named(self):
        policies = self.policies(rendering.example("production"))
        dns = ([53, 53], [{"namespaceSelector": {
            "matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}])
        database = ([5432], [{"ipBlock": {"cidr": "10.20.0.0/24"}}])
        vault = ([8200], [{"namespaceSelector": {
            "matchLabels": {"kubernetes.io/metadata.name": "vault"}}}])
        collector = ([4317], [{"namespaceSelector": {
            "matchLabels": {"kubernetes.io/metadata.name": "observability"}}}])
        scraper = ([9464], rendering.example("production")["networkPolicy"]["monitoring"])
        registries = ([443], rendering.defaults()["networkPolicy"]["registries"]["to"])
        for component in ["server", "worker"]:
            self.assertEqual(self.allowed(policies[component]["egress"]),
                             [dns, database, vault, collector, registries])
            self.assertEqual(self.allowed(policies[component]["ingress"])[0], scraper)
        self.assertEqual(self.allowed(policies["migrate"]["egress"]), [dns, database])
        for component in ["migrate", "test"]:
            self.assertNotIn("ingress", policies[component])
        self.assertEqual(len(policies["worker"]["ingress"]), 1)
        _, (ports, callers) = self.allowed(policies["server"]["ingress"])
        self.assertEqual(ports, [8080])
        values = rendering.example("production")
        self.assertEqual(callers[1:], values["networkPolicy"]["callers"])
        self.assertEqual(list(callers[0]), ["podSelector"])

    def test_the_ports_of_registries_follow_the_configuration(self):
        policy = self.policies(rendering.example("self-hosted"))["worker"]
        ports, peers = self.allowed(policy["egress"])[-1]
        self.assertEqual(sorted(ports), [5000, 5443, 8443, 9000])
        self.assertEqual(peers, [{"ipBlock": {"cidr": "10.0.0.0/8"}}])
        # Without Vault there is no way to one.
        self.assertEqual(len(policy["egress"]), 3)
        # Realms and storage of a registry without TLS are reached with and without it.
        values = rendering.example("self-hosted")
        values["config"]["registry"] = [{
            "host": "registry.lab.lan", "plain_http": True, "token_realms": ["auth.lab.lan"],
            "storage_hosts": ["minio.lab.lan:9000"],
        }]
        ports, _ = self.allowed(self.policies(values)["worker"]["egress"])[-1]
        self.assertEqual(sorted(ports), [80, 443, 9000])

    def test_metrics_are_served_and_read_only_where_it_was_said(self):
        values = rendering.example("production")
        monitor = rendering.find(rendering.render(values), "PodMonitor", "rel-colophon")
        self.assertEqual(monitor["metadata"]["labels"]["release"], "prometheus")
        self.assertEqual([e["port"] for e in monitor["spec"]["podMetricsEndpoints"]], ["metrics"])
        for name in set(rendering.EXAMPLES) - {"production"}:
            documents = rendering.render(rendering.example(name))
            self.assertNotIn("telemetry", rendering.config(documents))
            self.assertNotIn("metrics", str(rendering.pods(documents)))
        values["networkPolicy"]["monitoring"] = []
        policies = self.policies(values)
        self.assertNotIn("ingress", policies["worker"])
        self.assertEqual(len(policies["server"]["ingress"]), 1)

    def test_metadata_of_the_cloud_is_out_of_reach(self):
        peers = rendering.defaults()["networkPolicy"]["registries"]["to"]
        self.assertEqual([peer["ipBlock"]["except"] for peer in peers],
                         [["169.254.0.0/16"], ["fd00:ec2::254/128"]])

    def test_it_can_be_left_to_others(self):
        values = rendering.example("minimal") | {"networkPolicy": {"enabled": False}}
        self.assertEqual(self.policies(values), {})
        self.assertIn("networkPolicy.enabled is false", rendering.notes(values))


if __name__ == "__main__":
    unittest.main()
