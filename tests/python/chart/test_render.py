"""Every example is what Helm, Kubernetes and the service take."""

import functools
import tempfile
import tomllib
import unittest

import helm_python
import kubernetes_validate
import kubernetes_validate.utils

import rendering

# Each schema is read once and not for each document.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)


# The oldest that the chart takes, and the newest that is known.
KUBERNETES = ["1.30", kubernetes_validate.latest_version()]
# Of the Gateway API and of Prometheus' operator, which are no part of Kubernetes and have no schema here.
WITHOUT_SCHEMA = {"HTTPRoute", "PodMonitor"}


class Examples(unittest.TestCase):
    def test_lint_finds_nothing(self):
        for name in rendering.EXAMPLES:
            with self.subTest(name):
                report = helm_python.lint(
                    rendering.CHART, rendering.example(name), strict=True, kube_version="v1.30.0"
                )
                self.assertEqual(report["errors"], [])
                # Severity 1 is information: a chart may have a picture.
                worse = [m for m in report["messages"] if m["severity"] != 1]
                self.assertEqual(worse, [])

    def test_kubernetes_takes_every_document(self):
        kinds = set()
        for name in rendering.EXAMPLES:
            for document in rendering.render(rendering.example(name)):
                kinds.add(document["kind"])
                if document["kind"] in WITHOUT_SCHEMA:
                    continue
                for version in KUBERNETES:
                    with self.subTest(name, document=document["metadata"]["name"], at=version):
                        kubernetes_validate.validate(document, version, strict=True)
        self.assertLessEqual(
            {
                "ConfigMap", "Deployment", "HTTPRoute", "HorizontalPodAutoscaler", "Ingress", "Job",
                "NetworkPolicy", "Pod", "PodDisruptionBudget", "PodMonitor", "Service",
                "ServiceAccount",
            },
            kinds,
        )

    def test_a_key_that_kubernetes_does_not_know_is_found(self):
        service = rendering.find(
            rendering.render(rendering.example("minimal")), "Service", "rel-colophon"
        )
        service["spec"]["prots"] = []
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(service, KUBERNETES[0], strict=True)

    def test_the_service_takes_every_configuration(self):
        for name in rendering.EXAMPLES:
            documents = rendering.render(rendering.example(name))
            for config in ["rel-colophon", "rel-colophon-migrate"]:
                with self.subTest(name, config=config):
                    good, said = rendering.ask_service(rendering.config_text(documents, config))
                    self.assertTrue(good, said)

    def test_a_configuration_says_what_the_values_say(self):
        for name in rendering.EXAMPLES:
            with self.subTest(name):
                values = rendering.example(name)
                config = rendering.config(rendering.render(values))
                # What the chart adds.
                self.assertEqual(config["server"].pop("listen"), "0.0.0.0:8080")
                self.assertEqual(config["worker"].pop("health_listen"), "0.0.0.0:8081")
                secrets = rendering.SECRETS
                self.assertEqual(config["database"].pop("url_file"), f"{secrets}/database-url")
                auth = config.get("vault", {}).get("auth", {})
                added = {
                    "kubernetes": {"token_file": f"{secrets}/vault-service-account",
                                   "audience": "vault.corp.lan"},
                    "approle": {"secret_id_file": f"{secrets}/vault-secret-id"},
                    None: {},
                }[auth.get("method")]
                self.assertEqual({key: auth.pop(key, None) for key in added}, added)
                if name == "production":
                    telemetry = config["telemetry"]
                    self.assertEqual(telemetry.pop("prometheus_listen"), "0.0.0.0:9464")
                    self.assertEqual(telemetry.pop("otlp_headers_file"), f"{secrets}/otlp-headers")
                # What is left is the values', where sections without a key are not written.
                asked = rendering.defaults()["config"] | values["config"]
                asked = {key: value for key, value in asked.items() if value}
                self.assertEqual({key: value for key, value in config.items() if value}, asked)

    def test_any_text_comes_through_to_the_service(self):
        for text in ['"', "\\", "a\nb", "\t", "<&>", "'''", "é", "🦀", "{{ .Values }}", "#", " x ", "1"]:
            with self.subTest(text):
                values = rendering.example("minimal")
                values["config"]["repository"] = [{"pattern": "*", "semver_floats": [text]}]
                config = rendering.config(rendering.render(values))
                self.assertEqual(config["repository"][0]["semver_floats"], [text])
        values = rendering.example("minimal")
        values["config"]["repository"] = [{"pattern": "*", "unique_tags": ['a"\\.[0-9]+']}]
        good, said = rendering.ask_service(rendering.config_text(rendering.render(values)))
        self.assertTrue(good, said)

    def test_names_stay_within_their_limits(self):
        for options in [{"name": "r" * 53}, {"name": "colophon"}]:
            documents = rendering.render(rendering.example("production"), **options)
            for document in documents:
                # A pod's name is that of its Deployment and up to 17 characters, and is a label.
                self.assertLessEqual(len(document["metadata"]["name"]), 63 - 14)
        self.assertEqual(rendering.find(documents, "Service", "colophon")["kind"], "Service")

    def test_documents_have_names_of_their_own(self):
        for name in rendering.EXAMPLES:
            seen = [
                (document["kind"], document["metadata"]["name"])
                for document in rendering.render(rendering.example(name))
            ]
            self.assertEqual(len(seen), len(set(seen)), name)

    def test_versions_agree(self):
        package = tomllib.loads((rendering.ROOT / "Cargo.toml").read_text())["workspace"]["package"]
        dockerfile = (rendering.ROOT / "Dockerfile").read_text()
        self.assertEqual(rendering.chart().metadata["appVersion"], package["version"])
        self.assertIn(f"ARG VERSION={package['version']}\n", dockerfile)
        self.assertIn(f"ARG BUILDER=rust:{package['rust-version']}-", dockerfile)

    def test_the_chart_can_be_packaged(self):
        with tempfile.TemporaryDirectory() as folder:
            archive = helm_python.package(rendering.CHART, destination=folder)
            with helm_python.Chart.load(archive) as packaged:
                self.assertEqual(packaged.name, "colophon")
                self.assertIsNotNone(packaged.schema)
                packaged.render(rendering.example("minimal"), name="rel", namespace="ns")


if __name__ == "__main__":
    unittest.main()
