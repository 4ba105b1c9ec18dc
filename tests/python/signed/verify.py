"""Verifies the signatures of an image as cosign does, sharing no code with Colophon: with the standard
library and openssl alone.

    verify.py http://HOST REPOSITORY TAG PUBLIC_KEY

For the manifest under the tag, and for each platform of an index, the tag sha256-<hex>.sig must hold a
signature of exactly that digest (cosign's "simple signing"), and what the tag sha256-<hex> lists must be
about that digest (OCI distribution-spec, "Referrers Tag Schema"). Prints a line for each of both.
"""

import base64
import hashlib
import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

KINDS = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
    ]
)
SIGNATURE = "dev.cosignproject.cosign/signature"


class Repository:
    """One repository of a registry without a login."""

    def __init__(self, url, name):
        self.base = f"{url}/v2/{name}"

    def read(self, path):
        request = urllib.request.Request(f"{self.base}/{path}", headers={"Accept": KINDS})
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    def manifest(self, reference):
        """The digest and the JSON of a manifest; None if it is not there."""
        try:
            found = self.read(f"manifests/{reference}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise
        digest = "sha256:" + hashlib.sha256(found).hexdigest()
        assert not reference.startswith("sha256:") or reference == digest, reference
        return digest, json.loads(found)

    def blob(self, digest):
        found = self.read(f"blobs/{digest}")
        assert "sha256:" + hashlib.sha256(found).hexdigest() == digest, digest
        return found


def is_signed(payload, signature, key):
    """Whether the key has signed the payload (ECDSA over its SHA-256)."""
    with tempfile.NamedTemporaryFile() as text, tempfile.NamedTemporaryFile() as proof:
        text.write(payload)
        text.flush()
        proof.write(base64.b64decode(signature))
        proof.flush()
        command = ["openssl", "dgst", "-sha256", "-verify", key, "-signature", proof.name, text.name]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def verify_cosign(repository, digest, key):
    found = repository.manifest(digest.replace(":", "-") + ".sig")
    assert found, f"{digest} has no tag of cosign"
    good = 0
    for layer in found[1]["layers"]:
        payload = repository.blob(layer["digest"])
        claimed = json.loads(payload)["critical"]["image"]["docker-manifest-digest"]
        assert claimed == digest, f"{claimed} is signed where {digest} should be"
        assert is_signed(payload, layer["annotations"][SIGNATURE], key), f"a bad signature of {digest}"
        good += 1
    assert good, f"{digest} has no signature"
    print(f"signed {digest}")


def verify_referrers(repository, digest):
    found = repository.manifest(digest.replace(":", "-"))
    for listed in found[1]["manifests"] if found else []:
        _, referrer = repository.manifest(listed["digest"])
        assert referrer["subject"]["digest"] == digest, listed["digest"]
        assert referrer["artifactType"] == listed["artifactType"], listed
        assert referrer.get("annotations") == listed.get("annotations"), listed
        for layer in referrer["layers"]:
            repository.blob(layer["digest"])
        print(f"{listed['artifactType']} {digest}")
        verify_referrers(repository, listed["digest"])


def main(url, name, tag, key):
    repository = Repository(url, name)
    digest, root = repository.manifest(tag)
    for subject in [digest] + [child["digest"] for child in root.get("manifests", [])]:
        verify_cosign(repository, subject, key)
        verify_referrers(repository, subject)


if __name__ == "__main__":
    main(*sys.argv[1:])
