"""Real-time rights are got or refused aloud, never raised; tried in processes of their own, for they stay changed."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="rights of Linux")


def told(code):
    """What a new process prints as JSON."""
    program = "import json\nfrom ontick.runtime.host import *\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@linux
def test_everything_is_got_or_refused_with_what_mends_it():
    lines = told("print(json.dumps(real_time(cpus=[0])))")
    topics = ("garbage", "threads", "cores", "SCHED_FIFO", "timers", "awake", "memory")
    assert len(lines) == len(topics)
    for line, topic in zip(lines, topics, strict=True):
        assert topic in line and "\n" not in line
        assert "refused" not in line or ";" in line


@linux
def test_without_rights_it_is_refused_with_the_lines_that_give_them():
    """As a user that nobody gave anything."""
    if os.getuid() != 0:
        pytest.skip("only root can become nobody")
    scheduler, awake, memory, kind = told(
        """
        import os, resource
        import ontick.runtime.clock
        resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        lines = real_time()
        mmap.mmap(-1, 64 << 20)  # can still be had
        print(json.dumps([lines[2], lines[4], lines[5], os.sched_getscheduler(0)]))
        """
    )
    assert scheduler.startswith("SCHED_FIFO refused") and "rtprio" in scheduler and kind == os.SCHED_OTHER
    assert "refused" in awake and "cpu_dma_latency" in awake.partition("; ")[2]
    assert "refused" in memory and "memlock" in memory


@linux
def test_cores_stay_awake_as_long_as_the_process_lives_however_often_it_asks():
    first, second, descriptors = told(
        """
        lines = [cores_awake(), cores_awake()]
        links = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        print(json.dumps([*lines, links.count(LATENCY)]))
        """
    )
    if "refused" in first:
        pytest.skip("this process may not keep cores awake")
    assert first == second and descriptors == 1


@linux
def test_under_a_limit_what_is_there_is_locked_and_later_memory_is_not():
    line, before, after = told(
        """
        import mmap
        import ontick.runtime.host as host
        host.memory_lock_limit_bytes = lambda: 1 << 30
        line, before = lock_memory(), host._status("VmLck")
        mmap.mmap(-1, 32 << 20).write(bytes(32 << 20))
        print(json.dumps([line, before, host._status("VmLck")]))
        """
    )
    if "refused" in line:
        pytest.skip("this process may not lock memory")
    assert "memory locked" in line and "not what comes (limit 1024 MiB" in line and before == after


@linux
def test_without_a_limit_later_memory_is_locked_as_well():
    line, before, after = told(
        """
        import mmap
        import ontick.runtime.host as host
        line, before = lock_memory(), host._status("VmLck")
        kept = mmap.mmap(-1, 32 << 20)
        print(json.dumps([line, before, host._status("VmLck")]))
        """
    )
    if "and what comes" not in line:
        pytest.skip("this process may not lock all of its memory")
    assert int(after.split()[0]) - int(before.split()[0]) >= 32 << 10


@linux
def test_children_and_threads_do_not_inherit_the_scheduler():
    if "refused" in told("print(json.dumps(fifo(1)))"):
        pytest.skip("SCHED_FIFO is not permitted here")
    mine, of_thread, of_child = told(
        """
        import os, subprocess, sys, threading
        fifo(10)
        kinds = [os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK]
        thread = threading.Thread(target=lambda: kinds.append(os.sched_getscheduler(0)))
        thread.start()
        thread.join()
        ask = [sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"]
        kinds.append(int(subprocess.check_output(ask)))
        print(json.dumps(kinds))
        """
    )
    assert (mine, of_thread, of_child) == (os.SCHED_FIFO, os.SCHED_OTHER, os.SCHED_OTHER)


def test_nothing_is_raised_for_nonsense():
    lines = told("print(json.dumps(real_time(priority=1000, cpus=[4096])))")
    assert any("refused" in line for line in lines) and len(lines) >= 3


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems_are_told_what_they_lack(system):
    lines = told(f"import sys\nsys.platform = {system!r}\nprint(json.dumps(real_time()))")
    assert any("refused" in line for line in lines)


def test_a_refused_step_names_itself():
    from ontick.runtime.host import _told

    def settle():
        raise OSError("no")

    assert _told(settle) == "settle refused: no"
