"""The image, built by the Dockerfile and run as the chart's pods are: read-only, without root, without
capabilities and without a network, against a real PostgreSQL.

Takes the folder with the two programs. `DATABASE_URL` names the database, on a Unix socket."""

import hashlib
import os
import pathlib
import re
import subprocess
import sys
import time
import unittest
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "chart"))
import rendering  # noqa: E402
from engine import PATIENCE, USER, engine  # noqa: E402

IMAGE = "colophon:test"
TOKEN = "colophon_" + "A" * 43


class Image(unittest.TestCase):
    """One image and one database for all tests."""

    @classmethod
    def setUpClass(cls):
        cls.engine = cls.enterClassContext(engine(os.environ["COLOPHON_PROGRAMS"]))
        cls.engine.base("base")
        cls.engine.build(IMAGE, "--build-arg", "RUNTIME=base", "--build-arg", "VERSION=1.2.3",
                         "--build-arg", "REVISION=0123abc")
        values = rendering.example("minimal")
        values["image"] = {"repository": "colophon", "tag": "test"}
        values["config"]["caller"][0]["token_sha256"] = hashlib.sha256(TOKEN.encode()).hexdigest()
        values["test"] = {"tokenSecret": {"name": "caller"}}
        cls.documents = rendering.render(values)
        cls.pods = rendering.pods(cls.documents)
        cls.mounts = cls.folders()

    @classmethod
    def folders(cls):
        """The volumes of the pods, as the kubelet would lay them out for the pods' user."""
        host = urllib.parse.parse_qs(urllib.parse.urlsplit(os.environ["DATABASE_URL"]).query)["host"][0]
        cls.socket = pathlib.Path(host) / ".s.PGSQL.5432"
        url = os.environ["DATABASE_URL"].replace(urllib.parse.quote(host, safe=""), "%2Fpostgres")
        mounts = {}
        for job, name in [("", "rel-colophon"), ("-migrate", "rel-colophon-migrate")]:
            config, secrets = cls.engine.folder / f"config{job}", cls.engine.folder / f"secrets{job}"
            config.mkdir()
            (config / "colophon.toml").write_text(rendering.config_text(cls.documents, name))
            secrets.mkdir()
            (secrets / "database-url").write_text(url)
            mounts[job] = {"config": config, "secrets": secrets}
        caller = cls.engine.folder / "caller"
        caller.mkdir()
        (caller / "token").write_text(TOKEN)
        mounts[""]["caller"] = caller
        for file in [*cls.engine.folder.glob("secrets*/*"), caller / "token"]:
            os.chmod(file, 0o440)
            os.chown(file, 0, USER)
        return mounts

    def start(self, pod, number=0, network="none"):
        """Starts a pod's container with the flags that its security context stands for."""
        spec = self.pods[pod]
        container, context = spec["containers"][number], spec["securityContext"]
        own = container["securityContext"]
        self.assertTrue(own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"])
        flags = [
            "--read-only", "--security-opt", "no-new-privileges", "--network", network,
            "--user", f"{context['runAsUser']}:{context['runAsGroup']}",
            "--memory", container["resources"]["limits"]["memory"].lower().rstrip("i"),
        ]
        for capability in own["capabilities"]["drop"]:
            flags += ["--cap-drop", capability]
        folders = self.mounts["-migrate" if "migrate" in pod else ""]
        for mount in container["volumeMounts"]:
            flags += ["-v", f"{folders[mount['name']]}:{mount['mountPath']}:ro"]
        flags += ["-v", f"{self.socket}:/postgres/.s.PGSQL.5432"]
        flags += [flag for entry in container.get("command", []) for flag in ("--entrypoint", entry)]
        # No name leads to the Service here.
        args = [a.replace("http://rel-colophon:9090", "http://127.0.0.1:8080") for a in container["args"]]
        name = f"{pod.partition('/')[2]}-{number}"
        self.engine.run("run", "-d", "--name", name, *flags, IMAGE, *args)
        self.addCleanup(self.engine.run, "rm", "-f", name)
        return name, container

    def ended(self, container):
        """How a container ended, and what it said."""
        status = int(self.engine.run("wait", container))
        return status, self.engine.run("logs", container)

    def ask(self, container, port, path):
        """A request from inside of the container's own network."""
        process = self.engine.inspect(container)["State"]["Pid"]
        ask = ["nsenter", "-t", str(process), "-n", "curl", "-sS", "--max-time", "10", "-w",
               "\n%{http_code}", f"http://127.0.0.1:{port}{path}"]
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=PATIENCE)
        return answer.stdout.rpartition("\n")[::2] if answer.returncode == 0 else (answer.stderr, "0")

    def wait_for(self, container, port, path):
        until = time.monotonic() + PATIENCE
        while True:
            body, status = self.ask(container, port, path)
            if status == "200":
                return body
            if time.monotonic() > until or not self.engine.inspect(container)["State"]["Running"]:
                self.fail(f"{path}: {status} {body}\n{self.engine.run('logs', container)}")
            time.sleep(0.1)

    def test_what_the_image_says_of_itself(self):
        image = self.engine.inspect(IMAGE)
        config = image["Config"]
        self.assertEqual(config["User"], f"{USER}:{USER}")
        self.assertEqual(config["Entrypoint"], ["/usr/local/bin/colophond"])
        self.assertEqual(config["Cmd"], ["run"])
        self.assertEqual(config["StopSignal"], "SIGTERM")
        labels = {key.removeprefix("org.opencontainers.image."): value
                  for key, value in config["Labels"].items()}
        self.assertEqual(labels["title"], "Colophon")
        self.assertEqual((labels["version"], labels["revision"]), ("1.2.3", "0123abc"))
        self.assertEqual(labels["licenses"], "Apache-2.0")
        self.assertIn("COLOPHON_CONFIG=/etc/colophon/colophon.toml", config["Env"])
        print(f"\nthe image has {image['Size'] / 1e6:.1f} MB", file=sys.stderr)
        # Both programs are there and run, the client as well.
        for program in ["colophond", "colophon"]:
            said = self.engine.run("run", "--rm", "--network", "none", "--read-only",
                                   "--entrypoint", f"/usr/local/bin/{program}", IMAGE, "--version")
            self.assertRegex(said, rf"^{program} \d")

    def test_the_pods_of_the_chart_run_and_stop(self):
        migrate, _ = self.start("Job/rel-colophon-migrate")
        status, said = self.ended(migrate)
        self.assertEqual(status, 0, said)
        running = {}
        for component in ["server", "worker"]:
            name, container = self.start(f"Deployment/rel-colophon-{component}")
            port = container["ports"][0]["containerPort"]
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"]:
                self.wait_for(name, port, container[probe]["httpGet"]["path"])
            self.confined(name)
            running[component] = name
        self.assertEqual(self.ask(running["server"], 8080, "/v1/releases")[1], "401")
        # What `helm test` runs: the configuration is good, and a call of the client comes through.
        beside = f"container:{running['server']}"
        for number, said_so in [(0, "the configuration is good"), (1, "")]:
            name, _ = self.start("Pod/rel-colophon-test", number, network=beside)
            status, said = self.ended(name)
            self.assertEqual(status, 0, said)
            self.assertIn(said_so, said)
        for component, name in running.items():
            since = time.monotonic()
            self.engine.run("kill", "--signal", "TERM", name)
            status, said = self.ended(name)
            took = time.monotonic() - since
            self.assertEqual(status, 0, said)
            self.assertIn("stopping", said)
            grace = self.pods[f"Deployment/rel-colophon-{component}"]["terminationGracePeriodSeconds"]
            self.assertLess(took, grace)
            # Nothing was written, since nothing can be.
            self.assertEqual([line for line in self.engine.run("diff", name).splitlines()
                              if not re.match(r"^[AC] /(postgres|etc|var|run)\b", line)], [])

    def confined(self, name):
        """What the kernel says of the process."""
        process = self.engine.inspect(name)["State"]["Pid"]
        status = dict(line.split(":\t", 1)
                      for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
                      if ":\t" in line)
        self.assertEqual(set(status["Uid"].split()), {str(USER)})
        self.assertEqual(set(status["Gid"].split()), {str(USER)})
        for capabilities in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]:
            self.assertEqual(int(status[capabilities], 16), 0, capabilities)
        self.assertEqual(status["NoNewPrivs"].strip(), "1")
        root = pathlib.Path(f"/proc/{process}/mounts").read_text().splitlines()[0].split()
        self.assertEqual(root[1], "/")
        self.assertIn("ro", root[3].split(","))


if __name__ == "__main__":
    os.environ["COLOPHON_PROGRAMS"] = sys.argv.pop(1)
    unittest.main()
