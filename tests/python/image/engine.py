"""A private Docker engine and the images that a test needs, made without any registry."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
PATIENCE = 60
USER = 65532


class Unusable(Exception):
    """No engine can be had; says what to do."""


class Engine:
    """Talks to one engine by its socket; nothing of the machine's own engine is touched."""

    def __init__(self, folder, client):
        self.folder, self.client = folder, client

    def environment(self):
        return {
            "PATH": os.environ["PATH"], "HOME": str(self.folder), "DOCKER_BUILDKIT": "1",
            "DOCKER_HOST": f"unix://{self.folder}/docker.sock",
        }

    def run(self, *arguments, check=True, stdin=None):
        """A call of the client; its output, which a failure shows."""
        answer = subprocess.run(
            [self.client, *map(str, arguments)], env=self.environment(), stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=5 * PATIENCE,
        )
        if check and answer.returncode != 0:
            raise AssertionError(f"docker {' '.join(map(str, arguments))}: {answer.stdout}")
        return answer.stdout if check else (answer.returncode, answer.stdout)

    def inspect(self, name):
        return json.loads(self.run("inspect", name))[0]

    def base(self, name):
        """The least that the service needs of a base image, of this machine's own files: the C
        library, libgcc, the certificate authorities and a name for the user."""
        root = self.folder / name
        libraries = subprocess.run(["ldd", self.programs / "colophond"], check=True, text=True,
                                   stdout=subprocess.PIPE).stdout
        files = [word for word in libraries.split() if word.startswith("/")]
        # What the C library loads only when a name is asked for.
        files += [str(pathlib.Path(files[0]).parent / extra)
                  for extra in ("libresolv.so.2", "libnss_dns.so.2", "libnss_files.so.2")]
        for file in [*files, "/etc/ssl/certs/ca-certificates.crt"]:
            (root / file[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, root / file[1:])
        (root / "etc/passwd").write_text(f"nonroot:x:{USER}:{USER}::/:/sbin/nologin\n")
        archive = self.folder / f"{name}.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(root, arcname=".", filter=owned_by_root)
        self.run("import", archive, name)

    def build(self, tag, *arguments):
        """The image as the Dockerfile makes it of programs that are there."""
        context = self.folder / "context"
        context.mkdir(exist_ok=True)
        for program in ("colophond", "colophon"):
            # Debugging information makes up most of a program that is built for development.
            subprocess.run(["strip", "-o", context / program, self.programs / program], check=True)
        self.run("build", "--network", "none", "-f", ROOT / "Dockerfile", "--target", "prebuilt",
                 "-t", tag, *arguments, context)


def owned_by_root(entry):
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


@contextlib.contextmanager
def engine(programs):
    """Starts an engine and ends it, with all of its containers, images and files."""
    daemon = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin")
    # A client of the same package as the daemon, where another one is installed as well.
    client = next((c for c in ("/usr/bin/docker", shutil.which("docker")) if c and os.path.exists(c)), None)
    if not daemon or not client:
        raise Unusable("there is no Docker engine: apt-get install docker.io")
    if os.geteuid() != 0:
        raise Unusable("an engine is started as root only: sudo make image-test")
    said = ""
    for storage in ("overlay2", "vfs"):
        # A short path, because that of a socket has 107 characters at most.
        with tempfile.TemporaryDirectory(prefix="engine-", dir="/tmp") as folder:
            folder = pathlib.Path(folder)
            log = folder / "log"
            arguments = [
                daemon, "--data-root", folder / "data", "--exec-root", folder / "exec",
                "--pidfile", folder / "pid", "--host", f"unix://{folder}/docker.sock",
                "--storage-driver", storage, "--bridge=none", "--iptables=false",
                "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
            ]
            with open(log, "w") as output:
                process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output,
                                           stderr=output, start_new_session=True)
            try:
                started = Engine(folder, client)
                started.programs = pathlib.Path(programs)
                if answers(started, process):
                    yield started
                    return
                said = log.read_text()[-2000:]
            finally:
                end(process, folder)
    raise Unusable(f"dockerd does not start; its last words:\n{said}")


def answers(engine, process):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        if engine.run("info", check=False)[0] == 0:
            return True
        time.sleep(0.1)
    return False


def end(process, folder):
    """Stops the daemon, which stops its containers and containerd."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    # A mount that is left over would keep its folder.
    with open("/proc/self/mountinfo") as table:
        mounts = [line.split()[4] for line in table if line.split()[4].startswith(f"{folder}/")]
    for mount in sorted(mounts, reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)
