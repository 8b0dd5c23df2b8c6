from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

from yunmo.monitoring import metrics as module
from yunmo.monitoring.exposition import OPENMETRICS, TEXT, Page, wants_openmetrics
from yunmo.monitoring.families import CODES, COUNTS, FACES, FAMILIES, SECONDS, Family
from yunmo.monitoring.metrics import Metrics
from yunmo.serving.observer import LaneMeter, Observer

PETS = {"project": "default", "endpoint": "pets", "model": "pets", "version": "3"}


def samples(metrics: Metrics, project: str | None = None) -> list[Sample]:
    body, _ = metrics.page(project=project)
    return [sample for family in parse_text(body.decode()) for sample in family.samples]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return the sum of a metric's samples that have these labels; None if there is none."""
    found = [
        sample.value for sample in samples(metrics) if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(found) if found else None


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    metrics = Metrics(tmp_path)
    yield metrics
    metrics.close()


def test_it_is_what_serving_calls(metrics: Metrics) -> None:
    observer: Observer = metrics
    meter: LaneMeter = observer.lane("default", "pets", "pets", 3)
    meter.begin()
    meter.request("native", "ok", 0.1)


def test_a_request_and_its_batch(metrics: Metrics) -> None:
    meter = metrics.lane("default", "pets", "pets", 3)
    for _ in range(3):
        meter.begin()
    assert value(metrics, "yunmo_requests_in_flight", **PETS) == 3.0
    meter.waiting(5)
    meter.batch(2, 5, [0.0002, 0.002], 0.03, "full")
    meter.request("native", "ok", 0.004)
    meter.request("native", "ok", 0.004)
    meter.request("grpc", "deadline_exceeded", 40.0)
    meter.shadow(True)
    meter.shadow(False)
    meter.shadow(None)
    meter.shadow(None)
    assert value(metrics, "yunmo_requests_total", **PETS, face="native", code="ok") == 2.0
    assert value(metrics, "yunmo_requests_total", **PETS, face="grpc", code="deadline_exceeded") == 1.0
    assert value(metrics, "yunmo_requests_total", **PETS) == 3.0
    assert value(metrics, "yunmo_request_seconds_bucket", **PETS, face="native", le="0.0025") == 0.0
    assert value(metrics, "yunmo_request_seconds_bucket", **PETS, face="native", le="0.005") == 2.0
    assert value(metrics, "yunmo_request_seconds_bucket", **PETS, face="grpc", le="30.0") == 0.0
    assert value(metrics, "yunmo_request_seconds_bucket", **PETS, face="grpc", le="+Inf") == 1.0
    assert value(metrics, "yunmo_request_seconds_sum", **PETS, face="grpc") == 40.0
    assert value(metrics, "yunmo_queue_seconds_count", **PETS) == 2.0
    assert value(metrics, "yunmo_queue_seconds_sum", **PETS) == pytest.approx(0.0022)
    assert value(metrics, "yunmo_run_seconds_sum", **PETS) == 0.03
    assert value(metrics, "yunmo_batch_rows_bucket", **PETS, le="4.0") == 0.0
    assert value(metrics, "yunmo_batch_rows_bucket", **PETS, le="8.0") == 1.0
    assert value(metrics, "yunmo_batch_rows_sum", **PETS) == 5.0
    assert value(metrics, "yunmo_batch_requests_bucket", **PETS, le="2.0") == 1.0
    assert value(metrics, "yunmo_batches_total", **PETS, reason="full") == 1.0
    assert value(metrics, "yunmo_batches_total", **PETS) == 1.0
    assert value(metrics, "yunmo_waiting_rows", **PETS) == 5.0
    assert value(metrics, "yunmo_requests_in_flight", **PETS) == 0.0
    assert value(metrics, "yunmo_version_loaded_workers", **PETS) == 1.0
    results = {name: value(metrics, "yunmo_shadow_answers_total", result=name) for name in ("agrees", "differs")}
    assert results == {"agrees": 1.0, "differs": 1.0}
    assert value(metrics, "yunmo_shadow_answers_total", result="failed") == 2.0


@pytest.mark.parametrize("rows", [1, 2, 3, 64, 65, 256, 257, 100_000])
def test_rows_of_any_number_are_in_the_bucket_of_the_least_bound_above(metrics: Metrics, rows: int) -> None:
    meter = metrics.lane("default", "pets", "pets", 3)
    meter.batch(rows, rows, [0.0] * rows, 0.0, "idle")
    for name in ("yunmo_batch_rows", "yunmo_batch_requests"):
        for bound in COUNTS:
            assert value(metrics, f"{name}_bucket", le=str(bound)) == float(rows <= bound)
        assert value(metrics, f"{name}_sum") == rows


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.00011, 0.5, 30.0, 30.1])
def test_times_are_in_the_bucket_of_the_least_bound_above(metrics: Metrics, seconds: float) -> None:
    metrics.lane("default", "pets", "pets", 3).request("oip", "ok", seconds)
    for bound in SECONDS:
        assert value(metrics, "yunmo_request_seconds_bucket", face="oip", le=str(bound)) == float(seconds <= bound)


def test_names_that_callers_think_up_are_no_labels(metrics: Metrics) -> None:
    before = len(samples(metrics))
    for number in range(1000):
        metrics.request("default", f"nothing-{number}", "native", "not_found", 0.001)
    metrics.request("", "", "management", "unauthenticated", 0.001)
    metrics.lane("default", "pets", "pets", 3).request("native", "no_such_code", 0.001)
    assert value(metrics, "yunmo_requests_total", endpoint="", code="not_found") == 1000.0
    assert value(metrics, "yunmo_requests_total", endpoint="pets", code="other") == 1.0
    assert len(samples(metrics)) - before < 300


def test_requests_to_an_endpoint_that_reach_no_version_have_its_name(metrics: Metrics) -> None:
    meter = metrics.lane("default", "pets", "pets", 3)
    metrics.request("default", "pets", "native", "invalid_input", 0.001)
    metrics.request("other", "pets", "native", "not_found", 0.001)
    assert value(metrics, "yunmo_requests_total", project="default", endpoint="pets", version="") == 1.0
    assert value(metrics, "yunmo_requests_total", project="other") is None
    meter.close()
    metrics.request("default", "pets", "native", "not_found", 0.001)
    assert value(metrics, "yunmo_requests_total", endpoint="", code="not_found") == 2.0


def test_an_unloaded_version_stays_a_while_and_counts_on_when_it_comes_back(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = metrics.lane("default", "pets", "pets", 3)
    other = metrics.lane("default", "pets", "pets", 3)  # beside it, while the first one drains
    meter.begin()
    meter.request("native", "ok", 0.001)
    meter.close()
    assert value(metrics, "yunmo_version_loaded_workers", **PETS) == 1.0
    other.close()
    assert value(metrics, "yunmo_version_loaded_workers", **PETS) == 0.0
    assert value(metrics, "yunmo_requests_total", **PETS) == 1.0
    monkeypatch.setattr(module, "KEEP_SECONDS", -1.0)
    assert value(metrics, "yunmo_requests_total", **PETS) is None
    metrics.lane("default", "pets", "pets", 3).request("native", "ok", 0.001)
    assert value(metrics, "yunmo_requests_total", **PETS) == 2.0


def test_what_has_no_room_is_counted_together(metrics: Metrics) -> None:
    long = "x" * 200
    meter = metrics.lane("default", long, long, 3)
    meter.begin()
    meter.batch(1, 1, [0.0], 0.001, "idle")
    meter.request("native", "ok", 0.001)
    assert value(metrics, "yunmo_requests_total", endpoint="other") == 1.0
    assert value(metrics, "yunmo_batches_total", endpoint="other") == 1.0
    meter.close()
    assert value(metrics, "yunmo_requests_total", endpoint="other") == 1.0


def test_a_project_sees_its_own_and_the_service(metrics: Metrics) -> None:
    metrics.lane("default", "pets", "pets", 3).request("native", "ok", 0.001)
    metrics.lane("theirs", "cats", "cats", 1).request("native", "ok", 0.001)
    metrics.request("", "", "management", "unauthenticated", 0.001)
    seen = samples(metrics, "theirs")
    assert {sample.labels["project"] for sample in seen if "project" in sample.labels} == {"theirs"}
    assert {"yunmo_workers", "yunmo_build_info"} <= {sample.name for sample in seen}
    assert "pets" not in metrics.page(project="theirs")[0].decode()


def test_the_page_in_both_formats(metrics: Metrics) -> None:
    meter = metrics.lane("default", "pets", "pets", 3)
    meter.batch(1, 1, [0.0], 0.001, "idle")
    meter.request("native", "ok", 0.001)
    text, kind = metrics.page(project=None, accept="*/*")
    assert kind == TEXT
    newer, newer_kind = metrics.page(project=None, accept="application/openmetrics-text; version=1.0.0")
    assert newer_kind == OPENMETRICS
    families = {family.name: family for family in parse_text(text.decode())}
    again = {family.name: family for family in parse_openmetrics(newer.decode())}
    assert set(families) == set(again) == {family.name for family in FAMILIES}
    for family in FAMILIES:
        assert families[family.name].type == again[family.name].type == family.kind
        assert again[family.name].documentation == family.meaning
        assert families[family.name].samples, family.name
        for sample in families[family.name].samples:
            assert set(sample.labels) - {"le"} == set(family.labels)
    # What differs between two looks is the processor time and memory of this process.
    moving = {"yunmo_worker_cpu_seconds", "yunmo_worker_resident_bytes"}
    for name in set(families) - moving:
        assert families[name].samples == again[name].samples


def test_label_values_are_escaped() -> None:
    family = Family("yunmo_x", "gauge", ("name",), 'a "quoted" \\ meaning\nof two lines')
    for openmetrics, parse in ((False, parse_text), (True, parse_openmetrics)):
        page = Page(openmetrics=openmetrics)
        page.head(family)
        page.sample(family, ('say "\\n"\nand \\',), float("inf"))
        [found] = parse(page.end()[0].decode())
        assert found.documentation == family.meaning
        assert found.samples[0].labels == {"name": 'say "\\n"\nand \\'}
        assert found.samples[0].value == float("inf")


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2", True),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.5", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=much", False),
        (",;,=;q", False),
    ],
)
def test_which_format_is_wanted(accept: str, wanted: bool) -> None:
    assert wants_openmetrics(accept) is wanted


def test_several_workers_are_one_page(tmp_path: Path) -> None:
    first, second = Metrics(tmp_path), Metrics(tmp_path)
    meters = [each.lane("default", "pets", "pets", 3) for each in (first, second)]
    meters[0].request("native", "ok", 0.001)
    for _ in range(2):
        meters[1].request("native", "ok", 0.001)
    second.log_dropped(4)
    for each in (first, second):
        assert value(each, "yunmo_requests_total", **PETS) == 3.0
        assert value(each, "yunmo_version_loaded_workers", **PETS) == 2.0
        assert value(each, "yunmo_workers") == 2.0
        assert value(each, "yunmo_log_lines_dropped_total") == 4.0
    second.close()
    assert value(first, "yunmo_requests_total", **PETS) == 3.0
    assert value(first, "yunmo_version_loaded_workers", **PETS) == 1.0
    assert value(first, "yunmo_workers") == 1.0
    first.close()


def test_without_shared_memory_it_counts_alone(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "nowhere")
    metrics.lane("default", "pets", "pets", 3).request("native", "ok", 0.001)
    assert value(metrics, "yunmo_requests_total", **PETS) == 1.0
    metrics.close()


def test_errors_and_faces_of_the_program_are_all_known() -> None:
    from typing import get_args

    from yunmo.core.errors import ERRORS
    from yunmo.serving import observer

    assert set(ERRORS) | {observer.OK, observer.CLIENT_GONE} <= set(CODES)
    assert set(get_args(observer.Face)) == set(FACES)
    assert set(get_args(observer.Reason)) == set(module.families.REASONS)
