"""Values: what is refused, what follows from them, and that every one of them is explained."""

import copy
import json
import re
import unittest

import helm_python

import rendering
from rendering import CHART, ROOT, example, find, render

# Set by the chart and not by its users: addresses and files inside of the pods.
OWN_KEYS = {
    "server": {"listen", "address_file"},
    "database": {"url", "url_file"},
    "vault": {"client_cert_file", "client_key_file"},
    "vault.auth": {"token_file", "token_env", "secret_id_file", "audience"},
    "worker": {"health_listen", "health_address_file"},
    "telemetry": {"prometheus_listen", "otlp_headers_file"},
}


def put(values, path, value):
    """Sets `a.b.0.c`; a value of `...` takes the key away."""
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        values = values.setdefault(part, {}) if isinstance(values, dict) else values[part]
    if value is ...:
        del values[last]
    elif last == "+":
        values.append(value)
    else:
        values[last] = value


class Refusals(unittest.TestCase):
    def refused(self, name, path, value, says):
        values = example(name)
        put(values, path, value)
        with self.subTest(path, value=value), self.assertRaises(helm_python.HelmError) as caught:
            render(values)
        self.assertIn(says, str(caught.exception), path)

    def test_the_schema_refuses(self):
        host = "config.registry.0"
        caller = "config.caller.0"
        for path, value, says in [
            # What must be said.
            ("image.repository", "", "repository"),
            ("image", {}, "repository"),
            ("database.urlSecret.name", "", "name"),
            ("config.registry", [], "registry"),
            ("config.caller", [], "caller"),
            (f"{caller}.token_sha256", ..., "token_sha256"),
            (f"{host}.host", ..., "host"),
            # Typing errors, at every depth.
            ("replicas", 2, "replicas"),
            ("server.replica", 2, "replica"),
            ("server.resources.request", {}, "request"),
            ("config.servers", {}, "servers"),
            ("config.server.port", 1, "port"),
            (f"{host}.plainhttp", True, "plainhttp"),
            (f"{host}.credentials", [{"repos": "*"}], "repos"),
            (f"{caller}.grants.0.action", [], "action"),
            ("networkPolicy.callers", [{"podSelectors": {}}], "podSelectors"),
            # Secrets do not belong into values, nor do addresses that the chart sets.
            ("config.database", {"url": "postgres://u:p@h/d"}, "url"),
            (f"{caller}.token", "colophon_x", "token"),
            ("config.vault", {"address": "https://v", "auth": {"method": "token", "token": "s"}},
             "token"),
            ("config.server", {"listen": "0.0.0.0:1"}, "listen"),
            ("config.worker", {"health_listen": "0.0.0.0:1"}, "health_listen"),
            # Forms.
            ("image.digest", "sha256:abc", "digest"),
            ("image.tag", "a b", "tag"),
            ("server.replicas", -1, "replicas"),
            ("server.replicas", "two", "replicas"),
            ("server.preStopSeconds", 500, "preStopSeconds"),
            ("runAsUser", 0, "runAsUser"),
            ("config.server", {"connections": {"grace": "20"}}, "grace"),
            ("config.server", {"connections": {"grace": "1m 30s"}}, "grace"),
            ("config.worker", {"concurrency": 0}, "concurrency"),
            ("config.worker", {"concurrency": 1.5}, "concurrency"),
            ("config.log", {"format": "xml"}, "format"),
            ("config.telemetry", {"prometheus_listen": "0.0.0.0:1"}, "prometheus_listen"),
            ("config.telemetry", {"sample_ratio": 2}, "sample_ratio"),
            ("config.telemetry", {"otlp_endpoint": "collector:4317"}, "otlp_endpoint"),
            (f"{host}.host", "https://ghcr.io", "host"),
            (f"{host}.host", "ghcr.io/acme", "host"),
            (f"{host}.ca_file", "/etc/ssl/ca.pem", "ca_file"),
            (f"{host}.ca_file", "/etc/colophon/ca/../x.pem", "ca_file"),
            (f"{host}.cert_sha256", "12ab", "cert_sha256"),
            (f"{host}.max_connections", 2, "max_connections"),
            (f"{host}.max_requests_per_second", 0, "max_requests_per_second"),
            (f"{caller}.token_sha256", "cf80", "token_sha256"),
            (f"{caller}.name", "two words", "name"),
            (f"{caller}.grants.0.actions", ["write"], "actions"),
            (f"{caller}.grants", [], "grants"),
            ("config.repository", [{"pattern": "*", "retention": {"keep": 0}}], "keep"),
            ("vault.serviceAccountToken.expirationSeconds", 60, "expirationSeconds"),
            ("config.vault", {"address": "vault:8200", "auth": {"method": "token"}}, "address"),
            ("config.vault", {"address": "https://v", "auth": {"method": "password"}}, "auth"),
            ("config.vault", {"address": "https://v", "auth": {"method": "approle"}}, "auth"),
            ("config.vault", {"address": "https://v", "auth": {"method": "kubernetes"}}, "auth"),
            ("certificateAuthorities", [{"name": "corp"}], "certificateAuthorities"),
            ("certificateAuthorities", [{"name": "a", "secret": "s", "configMap": "c"}],
             "certificateAuthorities"),
            ("certificateAuthorities", [{"name": "a/../b", "secret": "s"}],
             "certificateAuthorities"),
            ("networkPolicy.database.ports", [0], "ports"),
            ("networkPolicy.dns", [], "dns"),
            ("service.httpPort", 70000, "httpPort"),
            ("ingress", {"enabled": True}, "hosts"),
            ("httpRoute", {"enabled": True, "hostnames": ["a.b"]}, "parentRefs"),
            ("serviceAccount.name", "Not_A_Name", "name"),
        ]:
            self.refused("minimal", path, value, says)

    def test_contradicting_trust_is_refused(self):
        ways = {
            "plain_http": True, "insecure_skip_verify": True,
            "cert_sha256": "a" * 64, "ca_file": "/etc/colophon/ca/corp.pem",
        }
        for first in ways:
            for second in ways:
                if first < second:
                    registry = {"host": "r.lan", first: ways[first], second: ways[second]}
                    self.refused("production", "config.registry.0", registry, "registry")
        # What is false contradicts nothing.
        values = example("production")
        values["config"]["registry"][0] |= {"plain_http": False, "insecure_skip_verify": False}
        render(values)

    def test_what_does_not_go_together_is_refused_with_a_remedy(self):
        ca_file = "/etc/colophon/ca/other.pem"
        for name, path, value, says in [
            ("production", "config.registry.0.ca_file", ca_file, "certificateAuthorities"),
            ("production", "config.vault.ca_file", ca_file, "certificateAuthorities"),
            ("production", "config.telemetry.otlp_ca_file", ca_file, "certificateAuthorities"),
            ("production", "certificateAuthorities", [], "certificateAuthorities"),
            ("production", "certificateAuthorities.+", {"name": "corp", "secret": "x"}, "twice"),
            ("production", "config.vault", ..., "config.vault"),
            ("workers", "vault", ..., "vault.secretIdSecret.name"),
            ("workers", "config.vault.auth", {"method": "token"}, "vault.tokenSecret.name"),
            ("production", "config.telemetry.otlp_endpoint", "http://collector:4317",
             "otlp_plain_http"),
            ("production", "server.autoscaling.minReplicas", 9, "server.autoscaling"),
            ("production", "worker.autoscaling.maxReplicas", 1, "worker.autoscaling"),
        ]:
            self.refused(name, path, value, says)


class Consequences(unittest.TestCase):
    def deployment(self, values, component):
        return find(render(values), "Deployment", f"rel-colophon-{component}")

    def test_pods_get_longer_than_the_service_takes_to_stop(self):
        def grace(values, component):
            pod = self.deployment(values, component)["spec"]["template"]["spec"]
            return pod["terminationGracePeriodSeconds"]

        values = example("minimal")
        # 5 s before the stop, 20 s for calls; 20 s for jobs.
        self.assertEqual(grace(values, "server"), 5 + 20 + 10)
        self.assertEqual(grace(values, "worker"), 20 + 10)
        for text, seconds in [("1500ms", 2), ("90s", 90), ("2m", 120), ("1h", 3600)]:
            values["config"]["server"] = {"connections": {"grace": text}}
            values["config"]["worker"] = {"stop_grace": text}
            self.assertEqual(grace(values, "server"), 5 + seconds + 10, text)
            self.assertEqual(grace(values, "worker"), seconds + 10, text)
        values["server"]["preStopSeconds"] = 0
        server = self.deployment(values, "server")["spec"]["template"]["spec"]
        self.assertNotIn("lifecycle", server["containers"][0])

    def test_a_changed_configuration_starts_new_pods(self):
        def checksums(values):
            templates = [self.deployment(values, c)["spec"]["template"] for c in ("server", "worker")]
            return {t["metadata"]["annotations"]["checksum/config"] for t in templates}

        values = example("minimal")
        before = checksums(values)
        self.assertEqual(len(before), 1)
        values["config"]["worker"] = {"concurrency": 7}
        self.assertFalse(before & checksums(values))
        # What the service reads again by itself starts none, unless it may not.
        for changed in ["caller", "registry", "repository", "vault"]:
            for interval, same in [("10s", True), (None, False)]:
                values = example("production")
                values["config"]["reload"] = {"watch_interval": interval}
                pods = checksums(values)
                values["config"][changed] = example("workers")["config"].get(changed, [])
                values["vault"]["secretIdSecret"] = {"name": "colophon-vault"}
                self.assertEqual(pods == checksums(values), same, changed)
        values = example("minimal") | {"service": {"httpPort": 80}}
        self.assertEqual(before, checksums(values))

    def test_probes_ask_the_port_that_answers(self):
        for component, port, number in [("server", "api", 8080), ("worker", "health", 8081)]:
            container = self.deployment(example("minimal"), component)
            container = container["spec"]["template"]["spec"]["containers"][0]
            self.assertEqual(container["ports"], [{"name": port, "containerPort": number}])
            for probe, path in [("startupProbe", "/livez"), ("livenessProbe", "/livez"),
                                ("readinessProbe", "/readyz")]:
                self.assertEqual(container[probe]["httpGet"], {"path": path, "port": port})

    def test_the_autoscaler_owns_the_replicas(self):
        self.assertNotIn("replicas", self.deployment(example("production"), "worker")["spec"])
        self.assertEqual(self.deployment(example("workers"), "worker")["spec"]["replicas"], 12)
        budgets = {
            d["metadata"]["name"]: d["spec"]["maxUnavailable"]
            for d in render(example("workers")) if d["kind"] == "PodDisruptionBudget"
        }
        self.assertEqual(budgets, {"rel-colophon-server": 1, "rel-colophon-worker": 3})

    def test_selectors_tell_the_components_apart_and_never_change(self):
        documents = render(example("workers"))
        labels = {
            c: find(documents, "Deployment", f"rel-colophon-{c}")["spec"]["selector"]["matchLabels"]
            for c in ("server", "worker")
        }
        # A Deployment's selector cannot be changed; an upgrade would fail.
        for component, selector in labels.items():
            self.assertEqual(selector, {
                "app.kubernetes.io/name": "colophon", "app.kubernetes.io/instance": "rel",
                "app.kubernetes.io/component": component,
            })
        service = find(documents, "Service", "rel-colophon")["spec"]
        self.assertEqual(service["selector"], labels["server"])
        self.assertEqual([(p["name"], p["targetPort"]) for p in service["ports"]],
                         [("http", "api"), ("grpc", "api")])

    def test_migrations_go_first_with_all_that_they_need(self):
        documents = render(example("production"))
        hooks = {
            d["kind"]: int(d["metadata"]["annotations"]["helm.sh/hook-weight"])
            for d in documents
            if d["metadata"].get("annotations", {}).get("helm.sh/hook") == "pre-install,pre-upgrade"
        }
        self.assertEqual(hooks, {"ConfigMap": -10, "NetworkPolicy": -10, "Job": 0})
        job = find(documents, "Job", "rel-colophon-migrate")["spec"]["template"]["spec"]
        # An account of this chart would not be there yet at an installation.
        self.assertNotIn("serviceAccountName", job)
        self.assertEqual(job["containers"][0]["args"][-1], "migrate")
        off = render(example("minimal") | {"migrations": {"enabled": False}})
        self.assertFalse([d for d in off if d["metadata"]["name"].endswith("-migrate")])

    def test_gateways_know_every_service_of_the_contract(self):
        services = {"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"}
        for file in (ROOT / "proto/colophon/v1").glob("*.proto"):
            names = re.findall(r"^service (\w+)", file.read_text(), re.MULTILINE)
            services |= {f"colophon.v1.{name}" for name in names}
        route = find(render(example("workers")), "HTTPRoute", "rel-colophon")["spec"]
        grpc, rest = route["rules"]
        self.assertEqual({m["path"]["value"] for m in grpc["matches"]}, {f"/{s}" for s in services},
                         "name them in helm/colophon/templates/_helpers.tpl")
        self.assertEqual(grpc["backendRefs"], [{"name": "rel-colophon", "port": 9090}])
        self.assertEqual(rest["backendRefs"], [{"name": "rel-colophon", "port": 8080}])
        ingress = find(render(example("production")), "Ingress", "rel-colophon-grpc")["spec"]
        paths = ingress["rules"][0]["http"]["paths"]
        self.assertEqual({path["path"] for path in paths}, {f"/{s}" for s in services})

    def test_notes_warn_of_what_is_dangerous(self):
        values = example("minimal")
        values["config"]["registry"][0]["insecure_skip_verify"] = True
        values["worker"]["replicas"] = 0
        notes = rendering.notes(values)
        for words in ["any certificate is accepted", "accepted and wait", "One replica"]:
            self.assertIn(words, notes)
        values = example("production")
        self.assertNotIn("any certificate", rendering.notes(values))
        # The autoscaler says how many there are.
        values["worker"]["replicas"] = 0
        self.assertNotIn("accepted and wait", rendering.notes(values))


class Explained(unittest.TestCase):
    """README.md has every value, and the schema every key of the configuration."""

    maxDiff = None

    def test_every_value_is_in_the_readme_with_its_default(self):
        def leaves(values, prefix=""):
            for key, value in values.items():
                if isinstance(value, dict) and value and key != "resources":
                    yield from leaves(value, f"{prefix}{key}.")
                else:
                    plain = value if isinstance(value, (str, int, bool)) else ""
                    text = plain if isinstance(plain, str) else json.dumps(plain)
                    yield f"{prefix}{key}", f"`{text}`" if text else ""

        rows = re.findall(r"^\| `([\w.]+)` \| (.*?) ?\| (.+) \|$", (CHART / "README.md").read_text(),
                          re.MULTILINE)
        described = {key: default for key, default, _ in rows}
        self.assertEqual(len(rows), len(described), "a value is described twice")
        # Sections that are there or not, and have no default.
        sections = ["config.vault", "config.retention", "config.upload", "config.telemetry"]
        absent = dict.fromkeys(sections, "")
        self.assertEqual(described, dict(leaves(rendering.defaults())) | absent)

    def test_the_schema_has_every_key_of_the_configuration(self):
        documented, section = {}, None
        for line in (ROOT / "docs/configuration.md").read_text().splitlines():
            if title := re.match(r"###? `\[+([\w.]+)\]+`", line):
                section = title[1]
            elif line.startswith("## "):
                section = None
            elif section and (row := re.match(r"\| `(\w+)` \|", line)):
                documented.setdefault(section, set()).add(row[1])
        schema = json.loads((CHART / "values.schema.json").read_text())

        def walk(node, path):
            node = schema["definitions"][node["$ref"].split("/")[-1]] if "$ref" in node else node
            for way in [node, *node.get("oneOf", [])]:
                for key, below in way.get("properties", {}).items():
                    kept.setdefault(path, set()).add(key)
                    walk(below.get("items", below), f"{path}.{key}" if path else key)

        kept = {}
        walk(schema["properties"]["config"], "")
        sections = {path.split(".")[0] for path in documented}
        self.assertEqual(kept.pop(""), sections)
        expected = copy.deepcopy(documented)
        for path in list(documented):
            # A section below another is a key of that one.
            parent, _, key = path.rpartition(".")
            if parent:
                expected.setdefault(parent, set()).add(key)
        for path, own in OWN_KEYS.items():
            expected[path] -= own
        self.assertEqual(
            kept, expected,
            "give helm/colophon/values.schema.json the keys of docs/configuration.md, or, if the"
            " chart sets one itself, OWN_KEYS",
        )


if __name__ == "__main__":
    unittest.main()
