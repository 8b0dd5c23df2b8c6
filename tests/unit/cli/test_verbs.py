import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.client.fake_service import KEY, RUN, State

pytestmark = pytest.mark.usefixtures("service")

Yunmo = Callable[..., tuple[int, str, str]]

READING = [
    ["runs", "ls"],
    ["runs", "show", RUN],
    ["runs", "cancel", RUN],
    ["data", "ls"],
    ["data", "show", "pets:1"],
    ["data", "profile", "pets"],
    ["models", "ls"],
    ["models", "show", "pets"],
    ["models", "verify", "pets:1"],
    ["models", "alias", "pets:1", "champion"],
    ["deploy", "pets:1", "--endpoint", "animals"],
    ["rollback", "pets"],
    ["deploy", "pets:2", "--canary", "10"],
    ["deploy", "pets:2", "--shadow"],
    ["endpoints", "ls"],
    ["endpoints", "show", "pets"],
    ["endpoints", "set", "pets", "--concurrency", "8", "--timeout", "none"],
    ["endpoints", "rm", "pets"],
    ["endpoints", "schema", "pets"],
    ["keys", "ls"],
    ["keys", "create", "app", "--scope", "read", "--expires", "7d"],
    ["keys", "revoke", "key_1"],
    ["doctor"],
]


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_a_verb_speaks_to_people_and_to_machines(yunmo: Yunmo, arguments: list[str]) -> None:
    status, out, err = yunmo(*arguments)
    assert (status, err) == (0, "")
    assert out.strip()
    status, out, err = yunmo(*arguments, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)


def test_a_refused_bundle_is_status_1(yunmo: Yunmo) -> None:
    status, _, err = yunmo("models", "verify", "pets:2")
    assert status == 1
    assert err.startswith("error: pets:2: graph.onnx")
    status, out, _ = yunmo("models", "verify", "pets:2", "--json")
    assert status == 1
    assert json.loads(out)["valid"] is False


def test_a_canary_is_shown_with_what_to_do_next(yunmo: Yunmo) -> None:
    _, out, _ = yunmo("deploy", "pets:2", "--endpoint", "animals", "--canary", "10")
    assert "pets:1 (90 %)" in out
    assert "pets:2 (10 %)" in out
    assert "yunmo deploy pets:2 --endpoint animals" in out
    assert "yunmo rollback animals" in out
    _, out, _ = yunmo("deploy", "pets:2", "--shadow")
    assert "Shadow: pets:2" in out


def test_limits_are_set_one_by_one(yunmo: Yunmo, service: State) -> None:
    options = ["--concurrency", "8", "--queue", "200", "--timeout", "2s", "--sticky", "key"]
    status, out, _ = yunmo("endpoints", "set", "pets", *options)
    assert status == 0
    assert [line.split()[-1] for line in out.splitlines()[:4]] == ["8", "200", "2", "key"]
    yunmo("endpoints", "set", "pets", "--queue", "none")
    sent = [json.loads(request[3]) for request in service.named("PATCH", "/api/v1/endpoints/pets")]
    assert sent == [{"concurrency": 8, "queue": 200, "timeout": 2.0, "sticky": "key"}, {"queue": None}]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["deploy", "pets:1", "--canary", "10", "--shadow"], "Leave one out"),
        (["deploy", "pets:1", "--canary", "0"], "1 to 99"),
        (["deploy", "pets:1", "--canary", "100"], "leave --canary out"),
        (["endpoints", "set", "pets"], "--concurrency"),
        (["endpoints", "set", "pets", "--queue", "-1"], "--queue"),
        (["endpoints", "set", "pets", "--timeout", "soon"], "--timeout"),
        (["endpoints", "set", "pets", "--sticky", "glue"], "key or request"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(
    yunmo: Yunmo, service: State, arguments: list[str], hint: str
) -> None:
    status, out, err = yunmo(*arguments)
    assert (status, out, service.requests) == (1, "", [])
    assert hint in err
    assert err.count("\n") == 1


def test_a_new_key_is_shown_once(yunmo: Yunmo, service: State) -> None:
    _, out, _ = yunmo("keys", "create", "app", "--endpoint", "a", "--endpoint", "b", "--expires", "1h")
    assert KEY in out
    sent = json.loads(service.named("POST", "/api/v1/keys")[0][3])
    assert sent == {"name": "app", "scopes": ["predict"], "endpoints": ["a", "b"], "expires_in": 3600.0}


def test_export_and_import(yunmo: Yunmo, tmp_path: Path) -> None:
    file = tmp_path / "pets.zip"
    status, out, _ = yunmo("models", "export", "pets:1", file)
    assert status == 0
    assert file.stat().st_size == 6000
    assert "6.0 kB" in out
    file.write_bytes(b"PK\x03\x04")  # how every bundle's file begins
    status, out, _ = yunmo("models", "import", file)
    assert "pets:3" in out


def test_evaluate_gives_the_metrics(yunmo: Yunmo, tmp_path: Path) -> None:
    data = tmp_path / "test.csv"
    data.write_text("a,b\n1,2\n")
    status, out, _ = yunmo("evaluate", "pets:1", data, "--json")
    assert status == 0
    assert json.loads(out)["accuracy"] == 0.9
    _, out, _ = yunmo("evaluate", "pets:1", data)
    assert "90.0 %" in out
    assert "85.0 to 94.0 %" in out


def test_data_add(yunmo: Yunmo, service: State, tmp_path: Path) -> None:
    data = tmp_path / "test.csv"
    data.write_text("a,b\n1,2\n")
    status, out, _ = yunmo("data", "add", "pets", data, "--test", data)
    assert status == 0
    assert "pets:1" in out
    assert set(service.dataset["splits"]) == {"train", "test"}


# --- predict ---


def test_predict_pictures_and_rows(yunmo: Yunmo, tmp_path: Path) -> None:
    picture, rows = tmp_path / "cat.jpg", tmp_path / "rows.json"
    picture.write_bytes(b"JPEG")
    rows.write_text('[{"age": 1}, {"age": 2}]')
    status, out, _ = yunmo("predict", "pets", picture, rows, "--json")
    assert status == 0
    assert [each["label"]["value"] for each in json.loads(out)] == ["cat"] * 3
    status, out, _ = yunmo("predict", "pets", picture)
    assert "90.0%" in out


def test_predict_a_table_in_batches(yunmo: Yunmo, service: State, tmp_path: Path) -> None:
    source, target = tmp_path / "rows.csv", tmp_path / "answers.csv"
    source.write_text("id,age,city\n" + "".join(f"{n},{n if n % 7 else ''},Ulm\n" for n in range(450)))
    status, out, err = yunmo("predict", "pets", source, "-o", target)
    assert (status, err) == (0, "")
    assert "450" in out
    sent = [json.loads(request[3]) for request in service.named("POST", "/api/v1/endpoints/pets/predict")]
    sent.sort(key=lambda rows: int(rows[1]["age"]))  # some are on their way at a time
    assert [len(each) for each in sent] == [200, 200, 50]
    assert sent[0][:2] == [{"age": None, "city": "Ulm"}, {"age": "1", "city": "Ulm"}]
    with target.open(newline="") as file:
        answers = list(csv.DictReader(file))
    assert answers[1] == {
        "id": "1",
        "age": "1",
        "city": "Ulm",
        "predicted_label": "cat",
        "label_probability": "0.9",
    }
    assert len(answers) == 450
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.csv", "rows.csv"]


def test_broken_off_a_prediction_goes_on_and_with_another_model_begins_anew(
    yunmo: Yunmo, service: State, tmp_path: Path
) -> None:
    source, target = tmp_path / "rows.jsonl", tmp_path / "answers.csv"
    source.write_text("".join(f'{{"age": {n}, "city": "Ulm"}}\n' for n in range(2001)))
    service.refuse_rows_with = '"age":1200,'
    status, _, err = yunmo("predict", "pets", source, "-o", target)
    assert (status, err) == (1, "error: rows.jsonl, row 1201, field age: too old\n")
    assert not target.exists()
    kept = json.loads((tmp_path / "answers.csv.part.json").read_text())["rows"]
    assert kept == 1200
    service.refuse_rows_with = None
    service.requests.clear()
    assert yunmo("predict", "pets", source, "-o", target)[0] == 0
    sent = [json.loads(request[3]) for request in service.named("POST", "/api/v1/endpoints/pets/predict")]
    assert sum(map(len, sent)) == 2001 - kept
    with target.open(newline="") as file:
        assert [row["age"] for row in csv.DictReader(file)] == [str(n) for n in range(2001)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.csv", "rows.jsonl"]


def test_jobs_are_started_followed_and_listed(yunmo: Yunmo, service: State) -> None:
    status, out, _ = yunmo("jobs", "start", "pets", "rows:2", "--name", "told")
    assert status == 0
    assert "told:1" in out
    [request] = service.named("POST", "/api/v1/endpoints/pets/jobs")
    assert json.loads(request[3]) == {"dataset": "rows:2", "split": "train", "name": "told"}
    _, out, _ = yunmo("jobs", "ls", "pets")
    assert "rows:2" in out
    _, out, _ = yunmo("jobs", "show", "pets", "job_1", "--json")
    assert json.loads(out)["output"] == "told:1"
    _, out, _ = yunmo("jobs", "cancel", "pets", "job_1")
    assert "yunmo jobs resume pets job_1" in out
    assert yunmo("jobs", "resume", "pets", "job_1", "--detach")[0] == 0


def test_predict_a_table_to_stdout(yunmo: Yunmo, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("age,city\n1,Ulm\n2,Bonn\n")
    _, out, _ = yunmo("predict", "pets", source)
    assert out.splitlines() == ["predicted_label,label_probability", "cat,0.9", "cat,0.9"]
    _, out, _ = yunmo("predict", "pets", source, "--json")
    assert [json.loads(line)["label"]["value"] for line in out.splitlines()] == ["cat", "cat"]


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("rows.csv", "age,town\n1,Ulm\n", "'city'"),
        ("rows.csv", "age,city\n1,Ulm\n2\n", "row 3"),
        ("rows.json", "[1, 2]", "objects"),
        ("rows.json", "{", "not valid JSON"),
        ("rows.txt", "x", "a header without rows"),
    ],
)
def test_a_file_that_cannot_be_predicted_is_named(
    yunmo: Yunmo, tmp_path: Path, name: str, content: str, hint: str
) -> None:
    file, target = tmp_path / name, tmp_path / "answers.csv"
    file.write_text(content)
    status, _, err = yunmo("predict", "pets", file, *(["-o", target] if name.endswith("csv") else []))
    assert status == 1
    assert name in err
    assert hint in err
    assert not target.exists()


def test_a_missing_file_is_named_before_anything_is_sent(yunmo: Yunmo, service: State) -> None:
    status, _, err = yunmo("predict", "pets", "none.jpg")
    assert (status, err) == (1, "error: none.jpg: no such file\n")
    assert service.requests == []
