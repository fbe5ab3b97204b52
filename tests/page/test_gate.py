"""Requests of other pages, and requests for files that are no uploads, by every field of every endpoint."""

from __future__ import annotations

import itertools
import json
import os
import re
import uuid

import cv2
import httpx
import pytest
import synthetic_faces

from emotion_tf.page import gate

SECRET = "nobody may read this"
META = {"_type": "gradio.FileData"}
FORMS = {
    "path": lambda name: {"path": name},
    "upload": lambda name: {"path": name, "meta": META},
    "stream": lambda name: {"path": name, "is_stream": True, "meta": META},
    "list": lambda name: [{"path": name, "meta": META}],
    "video": lambda name: {"video": {"path": name, "meta": META}, "subtitles": None},
    "property": lambda name: {"value": {"path": name, "meta": META}, "visible": True},
    "address": lambda name: {"url": name},
    "address without a path": lambda name: {"path": None, "url": name, "meta": META},
    "address of an upload": lambda name: {"path": "", "url": f"/gradio_api/file={name}", "meta": META},
}


@pytest.fixture(scope="module")
def foreign(page, tmp_path_factory):
    """Names of files that no visitor uploaded."""
    beside = tmp_path_factory.mktemp("beside")
    cv2.imwrite(str(beside / "face.png"), synthetic_faces.draw_face(1))
    (beside / "secret.txt").write_text(SECRET)
    os.mkfifo(beside / "fifo.png")
    inside = page.uploads / "made-by-hand"
    inside.mkdir()
    os.mkfifo(inside / "fifo.png")
    (inside / "link.png").symlink_to(beside / "face.png")
    (page.uploads / "folder").symlink_to(beside)
    (page.uploads / "being_received").write_text(SECRET)
    names = [
        "/etc/hostname", "//etc/hostname", "file:///etc/hostname", beside / "face.png", beside / "secret.txt",
        beside / "fifo.png", inside / "fifo.png", inside / "link.png", page.uploads / "folder" / "face.png",
        page.uploads / "being_received", f"{inside}/../../examples/face_0.png", page.folder / "examples" / "face_0.png",
        "../examples/face_0.png", "/proc/self/environ", "/proc/self/fd/0", "/proxy/self/environ", inside, "a\0b",
        "\ud800", "x" * 5000,
    ]  # fmt: skip
    return [str(name) for name in names]


@pytest.fixture
def absent(page):
    """Name of an upload that is not there."""
    return str(page.uploads / ("0" * 64) / "face.png")


def endpoints(page):
    """Yields for each endpoint its address, the components of its inputs, and a function from inputs to JSON."""
    config = page.web.get("config").json()
    components = {component["id"]: component for component in config["components"]}
    info = page.web.get("gradio_api/info").json()["named_endpoints"]
    for row in config["dependencies"]:
        inputs = [components[n]["type"] for n in row["inputs"]]
        yield (
            "gradio_api/queue/join",
            inputs,
            lambda data, row=row: {"data": data, "fn_index": row["id"], "session_hash": uuid.uuid4().hex},
        )
        if (name := f"/{row['api_name']}") in info:
            for route in ("call", "call/v2", "run", "api"):
                names = [parameter["parameter_name"] for parameter in info[name]["parameters"]]
                if route == "call/v2":
                    yield f"gradio_api/{route}{name}", inputs, lambda data, names=names: dict(zip(names, data))
                else:
                    yield f"gradio_api/{route}{name}", inputs, lambda data: {"data": data}


def ask(page, route, body, name):
    """Posts a request. Returns the status and the answer, without the name of the file and what differs each time."""
    answer = page.web.post(route, content=json.dumps(body), headers={"content-type": "application/json"})
    text = answer.text
    if "event_id" in text and answer.status_code == 200:
        if route.endswith("join"):
            with page.web.stream("GET", "gradio_api/queue/data", params=body["session_hash"] and body) as stream:
                text = next(line for line in stream.iter_lines() if "process_completed" in line)
        else:
            text = page.web.get(f"{route.replace('/v2', '')}/{answer.json()['event_id']}").text
    assert SECRET not in text
    for spelling in (name, json.dumps(name)[1:-1]):
        text = text.replace(spelling, "NAME")
    return answer.status_code, re.sub(r'"event_id":"\w+"|"\w*(duration|time)":[\d.e-]+', "", text)


def test_no_field_of_any_endpoint_opens_a_file_that_is_no_upload(page, foreign, absent, listener):
    address, visits = listener
    names = [*foreign, f"{address}/face.png"]
    different, fields = [], 0
    for route, inputs, request in endpoints(page):
        for field in range(len(inputs)):
            fields += 1

            def answer(name, form, route=route, request=request, field=field, inputs=inputs):
                data = [None] * len(inputs)
                data[field] = FORMS[form](name)
                return ask(page, route, request(data), name)

            expected = answer(absent, "upload")
            some = names if route.endswith("join") else names[fields % 5 :: 5]  # the gate is the same
            for n, name in enumerate(some):
                form = list(FORMS)[(n + fields) % len(FORMS)]
                if answer(name, form) != expected:
                    different.append((route, field, name, form))
    assert different == [] and visits == [] and fields > 20


def test_a_bare_name_opens_no_file_either(page, foreign, absent, listener):
    address, visits = listener
    different = []
    for route, inputs, request in endpoints(page):
        for field, kind in enumerate(inputs):
            if kind == "textbox" or not route.endswith("join"):  # a text is not a name; the queue is the same
                continue

            def answer(name, route=route, request=request, field=field, inputs=inputs):
                data = [None] * len(inputs)
                data[field] = name
                return ask(page, route, request(data), name)

            expected = answer(absent)
            for name in (foreign[0], foreign[5], f"{address}/face.png"):
                if (received := answer(name)) != expected:
                    different.append((route, field, kind, name, received, expected))
    assert different == [] and visits == []


def test_no_route_serves_a_file_that_is_no_upload(page, foreign, absent, listener):
    address, visits = listener
    upload = page.upload("mine.txt", b"mine")
    expected = page.web.get(f"gradio_api/file={absent}")
    assert expected.status_code == 404 and expected.json() == {"detail": gate.GONE}
    names = [name for name in foreign if "\ud800" not in name and "\0" not in name] + [f"{address}/face.png"]
    for name in [*names, f"{upload}/../../../examples/face_0.png"]:
        for spelling in (name, name.replace("/", "%2f"), name.replace(".", "%2e")):
            answer = page.web.get(httpx.URL(page.address).copy_with(raw_path=b"/gradio_api/file=" + spelling.encode()))
            assert (answer.status_code, answer.text) == (404, expected.text), name
        if len(name) > 1000:  # Gradio asks the system about it, and fails
            continue
        for route in ("file=", "file/", "gradio_api/file/", "gradio_api/proxy=", "static/", "assets/", "svelte/"):
            answer = page.web.get(f"/{route}{name}")
            assert answer.status_code in (403, 404), (route, name)
            assert SECRET not in answer.text and "root:" not in answer.text
    answer = page.web.get(f"gradio_api/file={upload}", headers={"range": "bytes=1-2"})
    assert (answer.status_code, answer.text) == (206, "in") and visits == []


def test_an_address_beside_an_upload_is_not_fetched(page, listener):
    address, visits = listener
    upload = page.upload("face.png", cv2.imencode(".png", synthetic_faces.draw_face(1))[1].tobytes())
    route, _, request = next(row for row in endpoints(page) if row[1] == ["dropdown", "image", "video", "checkbox"])
    picture = {"path": upload, "url": f"{address}/face.png", "is_stream": True, "meta": META}
    _, answer = ask(page, route, request(["certain", picture, None, True]), upload)
    assert '"1|NAME|"' in answer and visits == []


def test_every_route_refuses_another_page(page):
    from gradio import Blocks
    from gradio.routes import App

    files = sorted(page.uploads.rglob("*"))
    host = page.web.base_url.netloc.decode()
    other = f"http://127.0.0.1:{page.web.base_url.port + 1}"
    origins = ("https://elsewhere.example", "null", "http://localhost", other)
    headers = [{"origin": origin} for origin in (*origins, f"https://{host}", f"http://{host}.example")]
    headers += [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}]
    headers += [{"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}]
    routes = App.create_app(Blocks()).openapi()["paths"]
    assert len(routes) > 50
    everywhere = itertools.product(routes, ("GET", "HEAD", "POST", "OPTIONS"), (headers[0], headers[-1]))
    for route, method, header in (
        *everywhere,
        *itertools.product(("/", "/gradio_api/upload"), ("GET", "POST"), headers),
    ):
        path = re.sub(r"{[^}]*}", "x", route)
        asked = {"access-control-request-method": "POST", **header}
        answer = page.web.request(method, path, headers=asked, files={"files": b"x"} if method == "POST" else None)
        assert answer.status_code == 403 and (method == "HEAD" or gate.FOREIGN in answer.text)
        assert "access-control-allow-origin" not in answer.headers
    assert sorted(page.uploads.rglob("*")) == files


def test_the_page_itself_and_links_to_it_are_answered(page):
    own = {"origin": page.address.rstrip("/"), "sec-fetch-site": "same-origin"}
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert page.web.get("", headers=link).status_code == 200
    assert page.web.post("gradio_api/upload", headers=link, files={"files": b"x"}).status_code == 403
    assert page.web.post("gradio_api/upload", headers=own, files={"files": b"x"}).status_code == 200
    forwarded = {"host": "localhost:9000", "origin": "http://localhost:9000"}  # as by ssh -L 9000:localhost:7860
    assert page.web.post("gradio_api/upload", headers=forwarded, files={"files": b"x"}).status_code == 200
    forwarded["host"] = "elsewhere.example"
    assert page.web.get("", headers=forwarded).status_code == 400
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    upgrade |= {"sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    assert page.web.get("gradio_api/queue/data", headers=upgrade).status_code != 101


def test_what_is_no_json_is_refused(page):
    for body in (b"", b"[" * 10**5, b"{", b"\xff", b'{"data": [' + b"9" * 10**4 + b"]}", b"--x--"):
        answer = page.web.post("gradio_api/queue/join", content=body)
        assert answer.status_code == 400 and answer.json() == {"detail": "Expected JSON."}


def test_half_an_emoji_does_not_end_the_answer(page):
    names = {row["api_name"]: row["id"] for row in page.web.get("config").json()["dependencies"]}
    for data in (["\ud83d", None, None, False], ["certain", "\ud83d", None, False], ["certain", None, None, "\ud83d"]):
        body = json.dumps(
            {"data": data, "fn_index": names["find_faces"], "session_hash": (session := uuid.uuid4().hex)}
        )
        page.web.post("gradio_api/queue/join", content=body).raise_for_status()
        answer = page.web.get("gradio_api/queue/data", params={"session_hash": session}).text
        assert "process_completed" in answer and "surrogate" not in answer
