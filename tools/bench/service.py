"""The service under measurement, for the scripts beside this file."""
import json
import pathlib
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLIENTS = 64
START_SECONDS = 60


def fail(message):
    raise SystemExit(f"error: {message}")


def build_programs():
    """The directory of the release build, built."""
    subprocess.run([ROOT / "tools/build", "release", "tensorforge", "tensorforged"], check=True,
                   stdout=subprocess.DEVNULL)
    return ROOT / "build/release"


def wait_until(ready, process, what):
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None:
            fail(f"{what} ended with {process.returncode}")
        if time.monotonic() > deadline:
            fail(f"{what} was not ready within {START_SECONDS} s")
        time.sleep(0.05)


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class TensorForge:
    """A service on a fresh directory and a free port; `stack` stops it."""

    def __init__(self, stack, directory, programs, ack="anchor", options=()):
        self.name = f"ack {ack}"
        self.programs = programs
        port_file = directory.with_suffix(".port")
        self.process = subprocess.Popen(
            [programs / "src/tensorforged", "--data-dir", str(directory), "--listen", "127.0.0.1:0", "--port-file",
             str(port_file), "--ack", ack, "--log-level", "warning", *options], stdout=subprocess.DEVNULL)
        stack.callback(stop, self.process)
        wait_until(port_file.exists, self.process, "tensorforged")
        self.server = "127.0.0.1:" + port_file.read_text().strip()

    def prepare(self, operation, keys):
        self.run(operation, 1, keys, 1)  # makes what `get` reads

    def run(self, operation, depth, keys, seconds, live=0, clients=CLIENTS):
        """The figures of one run of `tensorforge bench`."""
        arguments = ["--op", operation, "--clients", clients, "--depth", depth, "--seconds", seconds, "--keys", keys]
        return self.ask("bench", *arguments, *(["--live", live] if live else []))

    def ask(self, *arguments):
        command = [self.programs / "tools/cli/tensorforge", "--server", self.server, "--json", *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            fail(f"tensorforge {' '.join(map(str, arguments))}: {result.stderr}")
        return json.loads(result.stdout)
