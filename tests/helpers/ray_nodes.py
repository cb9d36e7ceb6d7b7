"""A Ray cluster of two nodes on this machine: prints its address, then obeys the words that it reads, a line each.

``kill`` ends a worker of ours by SIGKILL, ``remove`` takes the second node away, ``hide FOLDER`` adds a node that has
an empty folder in the place of that one. Each answers by a line: the word again, or why it could not.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}


def workers(raylets: set[int]) -> list[int]:
    """The processes of our workers that some raylets started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "cmdline").read_text(encoding="utf-8")
            parent = int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except OSError:  # it ended meanwhile
            continue
        if name.startswith("ray::") and "Worker" in name and parent in raylets:
            found.append(int(folder.name))
    return found


def hidden(address: str, folder: str) -> subprocess.Popen[bytes]:
    """A node in a mount name space of its own; needs root."""
    start = f"exec {sys.executable} -m ray.scripts.scripts start --address={address} --num-cpus=1 --block"
    command = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none "$0" && {start}', folder]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    # At another address, as a driver joins a node of its own machine, and that is to be the first.
    second = cluster.add_node(**NODE, node_ip_address="127.0.0.2")
    third = None
    print(cluster.address, flush=True)
    for word, _, folder in (line.strip().partition(" ") for line in sys.stdin):
        answer = word
        if word == "remove":
            cluster.remove_node(second)
        elif word == "kill":
            raylets = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
            os.kill(workers(raylets)[0], signal.SIGKILL)
        elif word == "hide":
            ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
            third = hidden(cluster.address, folder)
            while sum(node["Alive"] for node in ray.nodes()) < 3 and third.poll() is None:
                time.sleep(0.2)
            answer = word if third.poll() is None else f"no such node here ({third.returncode})"
            ray.shutdown()
        print(answer, flush=True)
    if third:
        third.terminate()
        third.wait()
    cluster.shutdown()


if __name__ == "__main__":
    main()
