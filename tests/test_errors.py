"""What leaves the process: no secret of any form of address, no hidden character, and no long value."""

import io
import time

import pytest

from skillscale.cli.output import Output, SafeStream
from skillscale.errors import InputError, TrackingError, name_fault, safe_text, show, without_password
from skillscale.formatting import to_json
from skillscale.tracking.address import read_host
from skillscale.tracking.connection import _tracking_error, check_database, resolve_uri
from skillscale.tracking.queue_storage import resolve_queue

SECRET = "hunter2"
PARTS = (SECRET, "hun", "ter2", "r2}")
FORMS = (
    "postgresql://me:hunter2@host/db",
    "postgresql://me:hun/ter2@host/db",
    "postgresql://me:hun#ter2@host/db",
    "postgresql://me:hun@ter2@host/db",
    "postgresql://me:hun:ter2@host/db",
    "postgresql://me:hun?ter2@host/db",
    "postgresql://me:hun%2Fter2@host/db",
    "postgresql://me:hun ter2@host/db",
    "postgresql://me:hun'ter2@host/db",
    "postgresql://me@corp:hunter2@host/db",
    "postgresql://me@corp.com:hun@ter2@host:5432/db",
    "postgresql+psycopg2://me:hunter2@[::1]:5432/db",
    "postgresql://host/db?user=me&password=hunter2",
    "postgresql://host/db?sslpassword=hunter2&sslmode=require",
    "postgresql://me:hunter2@host/db?options=a@b",
    "postgresql://me:p://hunter2@host/db",
    "mysql+pymysql://root:hunter2@localhost/x",
    "mysql://root:hunter2@h1,h2/x",
    "oracle://u:hunter2@h:1521/?service_name=x",
    "jdbc:postgresql://h/db?user=u&password=hunter2",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BODBC%7D%3BUID%3Dsa%3BPWD%3Dhunter2%3B",
    "DRIVER={ODBC};SERVER=h;UID=sa;PWD=hunter2;",
    "Driver={x};Server=h;Pwd={hun;te}}r2};Db=x",
    "PWD=hun ter2;Server=h",
    "host=h user=me password=hunter2 dbname=x",
    "host=h password='hun ter2' dbname=x",
    r"host=h password='hun\'ter2' dbname=x",
    "host=h password=hun;ter2",
    "password = hunter2 host=h",
    "PGPASSWORD=hunter2 psql",
    "https://hunter2@host",
    "https://hunter2:@host",
    "https://:hunter2@host",
    "https://hunter2:x-oauth-basic@github.com/a/b",
    "https://oauth2:hunter2@host/x",
    "http://me:hunter2@host:5000",
    "http://me:hun/ter2@host:5000",
    "http://me:12/hunter2@host:5000",
    "http://host:5000/?token=hunter2",
    "http://host/x?access_token=hunter2#y",
    "https://h.blob.core.windows.net/c?sig=hunter2&se=1",
    "https://host/path?X-Amz-Signature=hunter2&X-Amz-Credential=hunter2",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=hunter2==;EndpointSuffix=x",
    "s3://AKIAABCDEFGHIJKLMNOP:hunter2@bucket/path",
    "gs://u:hunter2@bucket",
    "sftp://u:hunter2@h/x",
    "redis://:hunter2@h:6379/0",
    "mongodb+srv://u:hunter2@c.mongodb.net/?a=b",
    "snowflake://u:hunter2@acc/db?passcode=hunter2",
    "databricks://token:hunter2@host",
    "databricks+connector://token:hunter2@host?http_path=x",
    "aws_secret_access_key=hunter2",
    "AWS_SECRET_ACCESS_KEY=hunter2 x",
    "MLFLOW_TRACKING_PASSWORD=hunter2",
    "MLFLOW_TRACKING_TOKEN=hunter2",
    "Authorization: Bearer hunter2hunter2",
    "{'password': 'hunter2', 'x': 1}",
    '{"token": "hunter2"}',
    "(psycopg2.OperationalError) connection to postgresql://me:hunter2@h failed (see https://sqlalche.me/e/20/e3q8)",
    "Could not parse SQLAlchemy URL from string 'postgresql:/me:hunter2@host.x/db'",
    "API request to http://me:hunter2@h:5000/api/2.0 failed with exception HTTPConnectionPool(host='h', port=5000)",
    "[('postgresql://a:hunter2@h/x', 'postgresql://b:hunter2@h/y')]",
    "queue=postgresql://a:hunter2@h/x,tracking=http://b:hunter2@h",
    "export X='postgresql://u:hunter2@h/x'; ls",
    "--tracking postgresql://u:hunter2@h/x --study y",
    "me:hunter2@host.com/db",
    "postgresql:me:hunter2@host.com",
)
HARMLESS = (
    "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning",
    "models:/name@champion, or models:/name/1",
    "humaneval:pass@1 is 0.4",
    "https://github.com/org/repo@v1",
    "n_tokens=5e9 and code=0.5,secret=0.5",
    "sqlite:////tmp/a.db",
    "postgresql://me@host/db",
    "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to those of a user",
    "Write postgresql+psycopg2://USER:PASSWORD@HOST/NAME",
    "the secret: none; pass = 3 of 4",
    "http://host:5000/ does not answer, write to me@x.com",
)


def shows_secret(text):
    return any(part in text for part in PARTS)


@pytest.mark.parametrize("form", FORMS)
def test_no_output_shows_a_secret(form, monkeypatch):
    answer, log, stderr = io.StringIO(), io.StringIO(), io.StringIO()
    out = Output(answer=answer, log=log)
    out.text(f"study one in {form}")
    out.progress(f"study one in {form}, and more")
    SafeStream(stderr).write(f"Traceback ...\nOperationalError: {form}\n")
    shown = [answer.getvalue(), log.getvalue(), stderr.getvalue(), to_json({"tracking": form, "list": [form]})]
    shown += [show(form), show([form]), show({"a": form}), show(ValueError(form)), without_password(f"{form}\n{form}")]
    shown += [str(_tracking_error("sqlite:///a.db", OSError(form)))]
    assert [text for text in shown if shows_secret(text)] == []


@pytest.mark.parametrize("form", [form for form in FORMS if " " not in form or "=" in form])
def test_no_refused_address_shows_a_secret(form):
    for read in (resolve_uri, resolve_queue, read_host, lambda text: check_database(resolve_uri(text))):
        if read is resolve_queue and "://" not in form and "=" not in form:
            continue  # the path of a file
        try:
            shown = str(read(form)) if read is check_database else ""
        except (InputError, TrackingError) as error:
            shown = str(error)
        assert not shows_secret(shown)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_is_shown(text):
    assert without_password(text) == text


@pytest.mark.parametrize(
    "text",
    ["a:" * 50_000, "http://" * 20_000, "@" * 100_000, "password=" * 20_000, "x=1;" * 40_000, "pwd='" + "''" * 20_000],
)
def test_long_texts_take_no_time(text):
    start = time.perf_counter()
    without_password(text)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    "address",
    ["host=h user=me password=hunter2", "DRIVER={ODBC};SERVER=h;PWD=hunter2", "dbname=x user=y", "Server=h;Uid=y"],
)
def test_a_connection_string_is_no_file(address):
    with pytest.raises(InputError, match=r"--queue takes a URL, but .* is a connection string"):
        resolve_queue(address)


@pytest.mark.parametrize("address", ["postgresql://me:hun@ter2@host/db", "postgresql://me:x@host:port/db"])
def test_an_address_that_a_driver_would_read_otherwise_is_refused(address):
    with pytest.raises(InputError, match="write @ as %40"):
        read_host(address)


def test_the_machine_of_an_address_is_read():
    hosts = [read_host(text) for text in ("postgresql://me:a%40b@h:5432/x", "http://me:x@h:5000", "sqlite:///a.db")]
    assert [host and (host.name, host.port) for host in hosts] == [("h", 5432), ("h", 5000), None]


@pytest.mark.parametrize(
    "name", ["a\nb", "a\x1b[31mb", "\u202eabc", "a\u2028b", "a\ud800", "\x00", "\x7f", "\x85", "\u2067"]
)
def test_hidden_characters_are_shown_and_refused(name):
    fault = name_fault(name)
    assert "control character" in fault
    assert name not in fault
    shown = safe_text(f"skill {name} has no loss")
    assert shown.replace("\n", "").isprintable()
    shown.encode()


@pytest.mark.parametrize("name", ["code", "naïve", "математика", "数学", "a b/c-d_e.f", "👩‍🔬", "x" * 250])
def test_other_names_are_taken(name):
    assert name_fault(name) == ""
    assert safe_text(name) == name


def test_long_names_are_refused():
    assert "251 characters" in name_fault("x" * 251)
    assert len(name_fault("x" * 10**6)) < 200


def test_a_value_is_shown_in_few_letters():
    deep = [1]
    for _ in range(10_000):
        deep = [deep]
    wide = [[["x" * 100] * 100] * 100] * 100
    values = (10**10_000, "x" * 10**6, deep, wide, {"a" * 999: "b" * 999}, b"x" * 999, float("nan"))
    assert all(len(show(value)) <= 200 for value in values)
    assert show("postgresql://me:" + "hunter2" * 100 + "@host/x") == "'postgresql://me:...@host/x'"
