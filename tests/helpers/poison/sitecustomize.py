"""Makes workers of Ray fail, in the way that ``POISON`` names; on the path of the processes of a cluster.

``kill`` ends the worker that judges a dialogue of the scenario ``poison`` by SIGKILL, ``fail`` lets its engine fail on
it, ``always`` lets the engine fail on everything, ``load`` ends the worker by SIGKILL while it loads the judge.
"""

import importlib.util
import os
import signal
import sys


def poison():
    from judge.engines.packed.engine import PackedEngine
    from judge.errors import EngineError
    from judge.scoring.judge import Judge

    way, prompts = os.environ["POISON"], Judge.prompts

    def poisoned(self, dialogues, metrics):
        if way == "always" or any(dialogue.scenario == "poison" for dialogue in dialogues):
            if way == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise EngineError("the device is lost")
        return prompts(self, dialogues, metrics)

    def killed(folder):
        os.kill(os.getpid(), signal.SIGKILL)

    if way == "load":
        PackedEngine.load = killed
    else:
        Judge.prompts = poisoned


class Finder:
    """Poisons a process that becomes one of our workers, and costs the many others of Ray nothing."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != "judge.scoring.ray_worker":
            return None
        sys.meta_path.remove(cls)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def run_and_poison(module):
            run(module)
            poison()

        spec.loader.exec_module = run_and_poison
        return spec


if "POISON" in os.environ:
    sys.meta_path.insert(0, Finder)
