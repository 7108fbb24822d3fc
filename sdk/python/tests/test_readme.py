"""The README's programs run."""

import pathlib
import re
import sys

import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_the_readmes_programs_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, sends, test = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "report.py").write_text(report, encoding="utf-8")
    (tmp_path / "sends.py").write_text(sends, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict = {}  # type: ignore[type-arg]
    exec(compile(test, "README.md", "exec"), names)
    names["test_a_quake_is_remembered"]()

    from sends import worker  # type: ignore[import-not-found]

    from edri_sdk.testing import TestNode

    with TestNode(worker) as node:
        node.answer("stock.count", lambda ask: 4)
        assert node.request("price.quote", {"item": "lamp"}) == 250
    sys.modules.pop("report"), sys.modules.pop("sends")
