"""Why a worker is gone, in one line: an error that was raised, or what Ray says of one that vanished."""

from types import SimpleNamespace

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError

from raymix.on_ray.lost import Hearing, sentence

RAISED = """Failure # 1 (occurred at 2026-11-22_21-00-00)
The actor died because of an error raised in its creation task, \x1b[36mray::ProxyTrial.__init__()\x1b[39m (pid=7)
Failure # 2 (occurred at 2026-11-22_21-01-00)
\x1b[36mray::ProxyTrial.train()\x1b[39m (pid=7, ip=10.0.0.3, actor_id=0a, repr=<raymix.on_ray.trial.ProxyTrial>)
  File "trial.py", line 116, in step
    return next(self._results)
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
"""
VANISHED = """Failure # 1 (occurred at 2026-11-22_21-00-00)
The actor died unexpectedly before finishing this task.
\tclass_name: ProxyTrial
\tpid: 7
\tip: 10.0.0.4
The actor is dead because its node has died. Node Id: 0a0b
"""
MEMORY = """Failure # 1 (occurred at 2026-11-22_21-00-00)
Task was killed due to the node running low on memory.
Memory on the node (IP: 10.0.0.5, ID: 0a) where the task (actor ID: 0b) was running was 15.2GB / 16.0GB (0.95).
"""
OF_2_60 = """Failure # 1 (occurred at 2026-11-22_21-00-00)
1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.5, ID: 0a) was 15.20GB \
used / 16.00GB limit (0.950000)
OOM kill reason: Memory usage 15200000000B exceeded threshold of 15200000000B (95.0% of 16000000000B limit)
"""

TOLD_AT_LENGTH = """Failure # 1 (occurred at 2026-11-22_21-00-00)
ray::ProxyTrial.train() (pid=7, ip=10.0.0.6)
  File "trial.py", line 7, in step
    read()
    ^^^^^^
requests.exceptions.ReadTimeout: the hub did not answer
OSError: Connection broken
"""


def test_the_last_failure_is_said_on_one_line_with_its_node() -> None:
    assert sentence(VANISHED) == "The actor is dead because its node has died. Node Id: 0a0b (on 10.0.0.4)"
    assert sentence("") == "no reason given"


def test_memory_that_is_full_is_said_with_what_to_do() -> None:
    assert sentence(RAISED).startswith(
        "out of memory on its GPU (Tried to allocate 2.00 GiB.); lower recipe.micro_batch"
    )
    assert sentence(RAISED).endswith(" (on 10.0.0.3)")
    remedy = "let fewer trials share a node (more `cpu` in `resources` of the ladder), or take nodes with more memory"
    for text, had in ((MEMORY, "15.2GB / 16.0GB"), (OF_2_60, "15.20GB used / 16.00GB")):
        said = f"out of memory: its node had {had} and Ray killed it; {remedy} (on 10.0.0.5)"
        assert sentence(text) == said


def test_what_was_raised_is_said_whatever_its_name_and_however_long_its_message() -> None:
    assert sentence(TOLD_AT_LENGTH) == "requests.exceptions.ReadTimeout: the hub did not answer (on 10.0.0.6)"
    assert sentence(TOLD_AT_LENGTH.replace("OSError: ", "")) == sentence(TOLD_AT_LENGTH)


def test_what_ray_keeps_to_itself_may_change_its_place() -> None:
    """Tune's manager of workers is no public interface: without the method that we know, Tune is as it comes."""
    hearing = Hearing(lambda trial_id, why: None)
    hearing.on_trial_add(SimpleNamespace(_actor_manager=SimpleNamespace()), None)
    hearing.on_trial_add(SimpleNamespace(), None)
    told: list[Exception] = []

    class Manager:
        def _actor_task_failed(self, tracked_actor_task: object, exception: Exception) -> None:
            told.append(exception)

    manager = Manager()
    for _ in range(2):
        hearing.on_trial_add(SimpleNamespace(_actor_manager=manager), None)
    manager._actor_task_failed(tracked_actor_task=None, exception=OutOfMemoryError("low"))
    assert [str(error) for error in told] == ["low"] and isinstance(told[0], RayActorError)
    assert callable(RayActorManager._actor_task_failed)  # the Ray that is installed has it
