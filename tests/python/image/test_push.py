"""Pushing from a real Docker engine: the Rust test of `colophon push` that needs one.

Takes the folder with the programs, as `test_image.py` does."""

import os
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from engine import ROOT, engine  # noqa: E402


class Push(unittest.TestCase):
    def test_push_remove_pull_and_run(self):
        with engine(os.environ["COLOPHON_PROGRAMS"]) as running:
            variables = {
                **os.environ, **running.environment(), "HOME": os.environ["HOME"],
                "COLOPHON_TEST_DOCKER": running.client,
            }
            command = ["cargo", "test", "--quiet", "--locked", "--workspace", "--test", "it",
                       "push_docker::", "--", "--ignored", "--nocapture"]
            answer = subprocess.run(command, cwd=ROOT, env=variables)
            self.assertEqual(answer.returncode, 0)


if __name__ == "__main__":
    os.environ["COLOPHON_PROGRAMS"] = sys.argv.pop(1)
    unittest.main()
