"""The process that renders chat templates is there when it is needed, and answers each request with its own answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from titer.template_process import TemplateProcess

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture
def process() -> Iterator[TemplateProcess]:
    process = TemplateProcess()
    yield process
    process.stop()


def render(process: TemplateProcess, template: str) -> str:
    texts: list[str] = process.ask(
        "render",
        template=template,
        special_tokens={"bos_token": "<s>"},
        conversations=[[{}]],
        add_generation_prompt=True,
    )
    return texts[0]


def test_a_killed_process_is_replaced(process: TemplateProcess) -> None:
    assert render(process, "{{ bos_token }}") == "<s>"
    first = process._process
    assert first is not None
    first.kill()
    first.wait()
    assert render(process, "{{ bos_token }}") == "<s>"


def test_it_ends_with_its_limits_and_is_replaced(process: TemplateProcess) -> None:
    for template, message in [(ENDLESS, "processor time"), ("{{ 'x' * 10 ** 10 }}", "MiB of memory")]:
        with pytest.raises(ValueError, match=message):
            render(process, template)
        assert render(process, "x") == "x"


def test_memory_is_a_matter_of_each_request(process: TemplateProcess) -> None:
    for _ in range(20):  # together more than one may have
        assert render(process, "{% set x = bos_token * 4000000 %}{{ x | length }}") == "12000000"


def test_a_long_template_gets_more(process: TemplateProcess) -> None:
    text = "word " * 400_000
    assert render(process, text) == text


def test_threads_share_it(process: TemplateProcess) -> None:
    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda number: render(process, f"{{{{ {number} + 1 }}}}"), range(100)))
    assert numbers == [str(number + 1) for number in range(100)]


def test_an_interrupted_request_leaves_no_answer_behind(process: TemplateProcess) -> None:
    threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        while True:
            render(process, "late{# #}" + "{{ 'x' * 1000 }}" * 1000)
    assert render(process, "next") == "next"


def test_what_is_no_json_is_refused_before_it_is_sent(process: TemplateProcess) -> None:
    with pytest.raises(TypeError, match="JSON"):
        process.ask("render", conversations=[[object()]])
    assert render(process, "x") == "x"


def test_it_writes_no_file(process: TemplateProcess) -> None:
    """The sandbox has no way to write; were there one, the kernel would still refuse."""
    render(process, "x")
    assert process._process is not None
    limits = subprocess.run(["cat", f"/proc/{process._process.pid}/limits"], capture_output=True, text=True).stdout
    assert [line.split()[3] for line in limits.splitlines() if line.startswith("Max file size")] == ["0"]


def test_a_fork_has_one_of_its_own() -> None:
    script = """
import os
from titer.chat import ChatTemplate

template = ChatTemplate("{{ messages[0].content }}", {}, "test")
render = lambda text: template.render([{"role": "user", "content": text}])
assert render("before") == "before"
child = os.fork()
if child == 0:
    os._exit(0 if all(render(str(n)) == str(n) for n in range(200)) else 1)
assert all(render(f"p{n}") == f"p{n}" for n in range(200))
assert os.waitpid(child, 0)[1] == 0
assert render("after") == "after"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path)
    })  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_forked_child_has_a_process_of_its_own(process: TemplateProcess) -> None:
    """Also where another thread is in the middle of a request; and the parent's process does not wait for the child."""
    assert render(process, "x") == "x"
    parents = process._process
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(lambda: [render(process, "{{ 'x' * 1000 }}" * 500) for _ in range(20)])
        child = os.fork()
        if child == 0:
            answer = render(process, "child")
            process.stop()
            os._exit(0 if answer == "child" else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert {len(text) for text in busy.result()} == {500_000}
    assert process._process is parents
