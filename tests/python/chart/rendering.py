"""The chart, rendered by Helm's own engine, and what the tests ask of it."""

import functools
import os
import pathlib
import subprocess
import tempfile
import tomllib

import helm_python
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
CHART = ROOT / "helm/colophon"
EXAMPLES = sorted(path.stem for path in (CHART / "examples").glob("*.yaml"))
POD_KINDS = {"Deployment", "Job", "Pod"}
SECRETS = "/var/run/secrets/colophon"


@functools.cache
def chart():
    return helm_python.Chart.load(CHART)


def example(name):
    """The values of an example, anew each time, so that a test may change them."""
    return yaml.safe_load((CHART / f"examples/{name}.yaml").read_text())


def defaults():
    return yaml.safe_load((CHART / "values.yaml").read_text())


def render(values, **options):
    """Every document, in order; the notes are left out."""
    chart().validate_schema(values)
    files = chart().render(values, **{"name": "rel", "namespace": "ns"} | options)
    documents = []
    for name, text in sorted(files.items()):
        if not name.endswith("NOTES.txt"):
            documents += [document for document in yaml.safe_load_all(text) if document]
    return documents


def notes(values):
    return chart().render(values, name="rel", namespace="ns")["colophon/templates/NOTES.txt"]


def find(documents, kind, name):
    """The one document of that kind and name."""
    found = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def pod_of(document):
    """The pod that a document makes."""
    return document["spec"] if document["kind"] == "Pod" else document["spec"]["template"]["spec"]


def pods(documents):
    """Every pod, by the document's kind and name."""
    return {
        f"{document['kind']}/{document['metadata']['name']}": pod_of(document)
        for document in documents
        if document["kind"] in POD_KINDS
    }


def config_text(documents, name="rel-colophon"):
    return find(documents, "ConfigMap", name)["data"]["colophon.toml"]


def config(documents, name="rel-colophon"):
    return tomllib.loads(config_text(documents, name))


def ask_service(text):
    """Whether the real service takes a configuration, and what it says. The files that it names
    are there, in another folder."""
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        (place / "database-url").write_text("postgres://colophon@db.corp.lan/colophon\n")
        (place / "otlp-headers").write_text("authorization: Bearer sample\n")
        authorities = pathlib.Path("/etc/ssl/certs/ca-certificates.crt").read_text()
        end = "-----END CERTIFICATE-----\n"
        (place / "ca").mkdir()
        for name in ["corp", "lab"]:
            (place / f"ca/{name}.pem").write_text(authorities.split(end)[0] + end)
        file = place / "colophon.toml"
        file.write_text(text.replace("/etc/colophon", folder).replace(SECRETS, folder))
        # As the pod of `helm test` does it.
        pod = pods(render(example("minimal")))["Pod/rel-colophon-test"]
        arguments = [a.replace("/etc/colophon", folder) for a in pod["containers"][0]["args"]]
        answer = subprocess.run(
            [os.environ["COLOPHOND"], *arguments],
            env={}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
        )
        return answer.returncode == 0, answer.stdout + answer.stderr
