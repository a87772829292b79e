"""mlkernels check: what is found, what is wrong, what to do."""

from __future__ import annotations

import sys

import pytest

from mlkernels.course import installation
from mlkernels.course.installation import Finding

DEVICE = {"platform": "cpu", "kind": "cpu", "count": 1, "x64": True, "cores": 2}
STATUS = {"ok": True, "neural_tangents": "0.6.5", "jax": "0.10.2", "tested": "0.10.2 to 0.12.0.1", "error": None}
KERNEL = {"base": "2.0.0", "controls": "2.0.0"}
FRONT = {"base": "^6.0.12", "controls": "^5.0.13"}


def assert_remedies(findings):
    for finding in findings:
        assert finding.ok or finding.remedy, finding
        assert "\n" not in finding.remedy


@pytest.mark.parametrize(
    ("version", "ok"), [((3, 10, 9), False), ((3, 11, 0), True), ((3, 13, 2), True), ((3, 14, 0), False)]
)
def test_python_range(version, ok):
    finding = installation.check_python(version)
    assert finding.ok is ok
    assert ok or "3.11 to 3.13" in finding.remedy


def test_packages_name_what_is_missing():
    findings = installation.check_packages(
        ["jax", "papermill"], version=lambda name: "1.2" if name == "jax" else "not installed"
    )
    assert [finding.ok for finding in findings] == [True, False]
    assert findings[0].value == "1.2"
    assert_remedies(findings)


def test_packages_of_the_issue_are_all_looked_at():
    wanted = [
        "jax",
        "jaxlib",
        "neural-tangents",
        "numpy",
        "matplotlib",
        "jupyterlab",
        "ipywidgets",
        "jupyterlab_widgets",
        "papermill",
    ]
    assert [finding.name for finding in installation.check_packages()] == wanted


def test_bridge():
    assert installation.check_bridge(STATUS).ok
    broken = installation.check_bridge({**STATUS, "ok": False, "error": "install jax==0.10.2"})
    assert not broken.ok
    assert broken.remedy == "install jax==0.10.2"
    assert "0.10.2 to 0.12.0.1" in installation.check_bridge({**STATUS, "ok": False}).remedy


def test_device_says_what_it_computes_on():
    found = {finding.name: finding for finding in installation.check_device(DEVICE)}
    assert found["cores"].value == "2"
    assert found["precision"].value == "float64"
    assert found["devices"].value == "1 x cpu (cpu)"
    assert "mlkernels[gpu]" in installation.check_device(DEVICE, has_gpu=True)[0].value
    assert all(finding.ok for finding in found.values())


def test_widgets_match():
    assert installation.check_widgets(KERNEL, FRONT).ok


@pytest.mark.parametrize(
    ("kernel", "front"),
    [
        ({"base": "1.2.0", "controls": "1.5.0"}, FRONT),  # ipywidgets 7 under a JupyterLab for ipywidgets 8
        (KERNEL, {"base": "^4.1.0", "controls": "^3.1.0"}),  # and the other way round
        (KERNEL, {"base": "^6.0.0", "controls": "^3.1.0"}),
        (KERNEL, {"base": "", "controls": ""}),
        (None, FRONT),
        (KERNEL, None),
        ({"base": "3.0.0", "controls": "3.0.0"}, FRONT),
    ],
)
def test_widgets_differ(kernel, front):
    finding = installation.check_widgets(kernel, front)
    assert not finding.ok
    assert_remedies([finding])


def test_widget_versions_of_this_environment_match():
    kernel, front = installation.widget_versions()
    assert kernel["base"].startswith("2.")
    assert installation.check_widgets(kernel, front).ok


def test_an_old_extension_in_the_home_folder_is_the_one_that_counts(tmp_path, monkeypatch):
    folder = tmp_path / "labextensions" / "@jupyter-widgets" / "jupyterlab-manager"
    folder.mkdir(parents=True)
    text = '{"dependencies": {"@jupyter-widgets/base": "^4.1.0", "@jupyter-widgets/controls": "^3.1.0"}}'
    (folder / "package.json").write_text(text)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert not installation.check_widgets(*installation.widget_versions()).ok


def test_a_missing_dataset_is_not_wrong():
    findings = installation.check_datasets(["omniglot", "glyphs"], {"omniglot": None, "glyphs": "made here"}.get)
    assert all(finding.ok for finding in findings)
    assert [finding.value for finding in findings] == ["not found (optional)", "made here"]


def test_memory():
    assert installation.check_memory(8.0).ok
    assert not installation.check_memory(0.5).ok


def test_check_looks_at_everything_and_is_well_here():
    findings = installation.check()
    names = [finding.name for finding in findings]
    for name in ("python", "bridge", "devices", "cores", "precision", "widgets", "free memory"):
        assert name in names
    assert any(name.startswith("data: ") for name in names)
    assert_remedies(findings)
    assert [finding for finding in findings if not finding.ok] == []


def test_check_survives_a_jax_that_does_not_start(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlkernels.kernels.neural_tangents_bridge", None)
    wrong = [finding for finding in installation.check() if not finding.ok]
    assert [finding.name for finding in wrong] == ["devices"]
    assert_remedies(wrong)


def test_findings_are_frozen():
    with pytest.raises(AttributeError):
        Finding("a", "b").ok = False
