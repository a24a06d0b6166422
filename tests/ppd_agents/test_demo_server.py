"""The web demo's server: routes, refusals, limits, several users at once; no browser."""

import asyncio
import base64
import io
import json
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from demo_models import examples, studio
from demo_web import httpx, server
from PIL import Image
from starlette.requests import Request
from starlette.testclient import TestClient

from ppd_agents.demo.server import PAGE
from ppd_agents.demo.uploads import TooLargeError

HERE = "http://127.0.0.1:8000"
CLICK = {"points": [[150, 60]], "labels": [1]}


def client(host="127.0.0.1", names=(), address=HERE, **shelf):
    return TestClient(server(**shelf).app(host, names), base_url=address, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def web():
    return client()


@pytest.fixture
def example(web):
    return web.post("/api/examples/0").json()


def stored(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def plain(width=60, height=40):
    picture = Image.new("RGB", (width, height), (20, 30, 40))
    picture.paste((200, 180, 90), (20, 10, 40, 30))
    return stored(picture)


def mask_png(view):
    head, _, data = view["mask"].partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))[..., 3] > 0


def lines(answer):
    return [json.loads(line) for line in answer.text.splitlines()]


def test_the_page_and_its_parts_are_served_and_nothing_is_fetched_elsewhere(web):
    page = web.get("/")
    assert page.status_code == 200
    assert "<canvas" in page.text
    for path in PAGE.iterdir():
        answer = web.get(f"/page/{path.name}")
        assert answer.status_code == 200
        found = re.findall(r"https?://[^\s\"'<)]+", answer.text)
        assert set(found) <= {"http://www.w3.org/2000/svg"}, path
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert web.get("/page/../server.py").status_code == 404
    assert web.get("/page/%2e%2e/server.py").status_code == 404


def test_about_names_models_and_no_folder(web):
    about = web.get("/api/about").json()
    assert about["segmenter"] == "mini"
    assert about["examples"] == ["shapes-test-0-000000", "shapes-test-0-000001"]
    assert "matching" in about["prompters"]
    assert about["colours"]["mask"] == [0, 214, 255]


def test_models_in_folders_are_named_without_them(web):
    from ppd_agents.demo.server import _scheme

    assert _scheme("checkpoint:vit_h:/home/me/secret/sam.pth") == "checkpoint:sam.pth"
    assert _scheme("sam:facebook/sam-vit-huge") == "sam:sam-vit-huge"


def test_examples_have_thumbnails_and_ground_truth(web, example):
    assert (example["width"], example["height"], example["truth"]) == (256, 256, True)
    thumbnail = web.get("/api/examples/1/thumbnail")
    assert Image.open(io.BytesIO(thumbnail.content)).format == "JPEG"
    truth = Image.open(io.BytesIO(web.get(f"/api/pictures/{example['id']}/truth").content))
    assert truth.size == (256, 256)
    assert web.post("/api/examples/99").status_code == 404


def test_a_click_gives_a_mask(web, example):
    view = web.post(f"/api/pictures/{example['id']}/segment", json=CLICK).json()
    mask = mask_png(view)
    assert mask.shape == (256, 256)
    picture = examples()[0].picture()
    wanted = studio().segment(picture, CLICK["points"], CLICK["labels"])
    assert (mask == wanted.mask).all()
    assert view["dice"] == pytest.approx(wanted.dice, abs=1e-4)
    assert view["points"] == [[150, 60]]


def test_points_at_the_very_edge_come_back_as_they_went(web, example):
    edge = {"points": [[255.99999999, 0.123456789]], "labels": [1]}
    address = f"/api/pictures/{example['id']}/segment"
    view = web.post(address, json=edge).json()
    assert view["points"] == edge["points"]
    assert web.post(address, json={name: view[name] for name in edge}).status_code == 200


def test_own_images_and_masks_are_taken(web):
    sent = web.post("/api/pictures?name=C%3A%5Cphotos%5Cmine.png", content=plain())
    assert sent.status_code == 201
    mine = sent.json()
    assert (mine["name"], mine["width"], mine["height"], mine["truth"]) == ("mine.png", 60, 40, False)
    shown = Image.open(io.BytesIO(web.get(f"/api/pictures/{mine['id']}/image").content))
    assert shown.size == (60, 40)
    refused = web.post(f"/api/pictures/{mine['id']}/attack", json=CLICK | {"points": [[30, 20]], "budget": 1})
    assert refused.status_code == 400
    assert "ground truth is not known" in refused.json()["error"]
    mask = Image.new("L", (60, 40))
    mask.paste(255, (20, 10, 40, 30))
    learnt = web.put(f"/api/pictures/{mine['id']}/mask?name=mask.png", content=stored(mask)).json()
    assert learnt["truth"] is True
    view = web.post(f"/api/pictures/{mine['id']}/segment", json={"points": [[30, 20]], "labels": [1]}).json()
    assert view["dice"] > 0.5
    small = web.put(
        f"/api/pictures/{mine['id']}/mask?name=m.png", content=stored(Image.new("L", (30, 30), 1))
    )
    assert small.status_code == 400
    assert small.json()["error"].startswith("m.png: is 30 x 30 pixels")


def test_attack_and_defence_come_step_by_step(web, example):
    attack = web.post(f"/api/pictures/{example['id']}/attack", json={"budget": 4})
    assert attack.headers["content-type"] == "application/x-ndjson"
    *views, end = lines(attack)
    assert end == {"end": "the budget of 4 steps is used up"}
    assert len(views) == 5
    assert views[-1]["dice"] < views[0]["dice"] - 0.2
    spoiled = {name: views[-1][name] for name in ("points", "labels")}
    *views, end = lines(web.post(f"/api/pictures/{example['id']}/defend", json=spoiled | {"budget": 2}))
    assert len(views) == 3
    assert len(views[-1]["labels"]) == len(spoiled["labels"]) - 2
    assert all(view["reason"] for view in views[1:])


def test_matched_points_go_by_a_rule_of_their_own(web, example):
    reference = web.post("/api/examples/1").json()
    asked = {"prompter": "matching", "reference": reference["id"]}
    proposed = web.post(f"/api/pictures/{example['id']}/propose", json=asked).json()
    given = {name: proposed[name] for name in ("points", "labels")}
    address = f"/api/pictures/{example['id']}/defend"
    left = [
        lines(web.post(address, json=given | {"budget": 60, "matched": matched})) for matched in (False, True)
    ]
    assert left[0][-2]["points"] != left[1][-2]["points"]


def test_points_come_from_a_reference(web, example):
    reference = web.post("/api/examples/1").json()
    asked = {"prompter": "matching", "reference": reference["id"]}
    view = web.post(f"/api/pictures/{example['id']}/propose", json=asked).json()
    wanted = studio().propose(examples()[0].picture(), "matching", examples()[1].picture())
    assert len(view["labels"]) > 3
    assert view["labels"] == wanted.labels.tolist()
    assert (np.array(view["points"]) == wanted.points).all()
    lost = web.post(f"/api/pictures/{example['id']}/propose", json=asked | {"reference": "x"})
    assert lost.status_code == 404


def test_downloads_are_what_ppd_refine_writes(web, example):
    mask = web.post(f"/api/pictures/{example['id']}/mask.png", json=CLICK)
    grey = np.asarray(Image.open(io.BytesIO(mask.content)))
    shown = mask_png(web.post(f"/api/pictures/{example['id']}/segment", json=CLICK).json())
    assert set(np.unique(grey)) == {0, 255}
    assert ((grey == 255) == shown).all()
    overlay = web.post(f"/api/pictures/{example['id']}/overlay.png", json=CLICK)
    assert Image.open(io.BytesIO(overlay.content)).size[0] == 512


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"", 400, "empty file"),
        (b"not a picture", 400, "not an image"),
        (plain()[:80], 400, "cut short"),
        (stored(Image.new("RGB", (1, 1))), 400, "1 x 1 pixels"),
        (stored(Image.new("1", (20_000, 60))), 413, "20000 x 60 pixels"),
        (bytes(300_001), 413, "larger than 0.3 MB"),
    ],
)
def test_bad_files_are_answered_in_words(web, content, status, says):
    answer = web.post("/api/pictures?name=bad.png", content=content)
    assert answer.status_code == status
    assert says in answer.json()["error"]
    assert answer.json()["error"].startswith("bad.png: ")


def test_endless_files_are_not_read_to_their_end():
    read = 0

    async def receive():
        nonlocal read
        read += 1
        return {"type": "http.request", "body": bytes(10_000), "more_body": True}

    scope = {"type": "http", "method": "POST", "headers": [], "query_string": b"", "path": "/api/pictures"}
    with pytest.raises(TooLargeError, match="larger than"):
        asyncio.run(server()._upload(Request(scope, receive)))
    assert read == 31
    scope["headers"] = [(b"content-length", b"9" * 12)]
    with pytest.raises(TooLargeError, match="larger than"):
        asyncio.run(server()._upload(Request(scope, receive)))
    assert read == 31


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("nonsense", "not JSON"),
        ("[" * 5000, "not JSON"),
        ("[]", "object with the keys"),
        ('{"point": []}', "object with the keys"),
        ('{"points": [[1, "2"]], "labels": [1]}', "list of [x, y]"),
        ('{"points": [[1, 2]], "labels": [7]}', "labels must be 1"),
        ('{"points": [[1, 2]], "labels": [true]}', "labels must be 1"),
        ('{"points": [[1, NaN]], "labels": [1]}', "not finite"),
        ('{"points": [[1, 1e999]], "labels": [1]}', "not finite"),
        ('{"points": [[999, 2]], "labels": [1]}', "outside the image"),
        ('{"budget": 0}', "budget must be"),
        ('{"budget": 10000}', "budget must be"),
        ('{"budget": true}', "budget must be"),
        ('{"prompter": 3}', "must be text"),
        ('{"matched": 1}', "matched must be true or false"),
    ],
)
@pytest.mark.parametrize("action", ["defend"])
def test_bad_requests_are_answered_in_words(web, example, action, asked, says):
    answer = web.post(f"/api/pictures/{example['id']}/{action}", content=asked)
    assert answer.status_code == 400
    assert says in answer.json()["error"]


def test_defending_nothing_is_refused(web, example):
    answer = web.post(f"/api/pictures/{example['id']}/defend", json={})
    assert answer.status_code == 400
    assert "Set at least one point" in answer.json()["error"]


def test_too_long_requests_are_refused(web, example):
    answer = web.post(f"/api/pictures/{example['id']}/segment", content=b" " * 200_001)
    assert answer.status_code == 413


def test_unknown_pages_are_answered_in_words(web):
    answer = web.get("/api/nothing")
    assert (answer.status_code, answer.json()) == (404, {"error": "There is nothing here."})
    assert web.get("/api/pictures").status_code == 405


def test_what_breaks_stays_on_the_server():
    broken = server()
    broken.studio.segment = lambda *_: (_ for _ in ()).throw(OSError("/home/me/secret cannot be read"))
    web = TestClient(broken.app("127.0.0.1"), base_url=HERE, raise_server_exceptions=False)
    number = web.post("/api/examples/0").json()["id"]
    answer = web.post(f"/api/pictures/{number}/segment", json=CLICK)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


# ---- who may ask ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"origin": HERE, "sec-fetch-site": "same-origin"}, 200),
        ({"host": "evil.example:8000"}, 403),
        ({"host": "192.168.0.7:8000"}, 403),
        ({"host": ""}, 403),
        ({"host": "[half"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 403),
    ],
)
def test_other_web_pages_are_refused(web, headers, status):
    answer = web.get("/api/about", headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert "error" in answer.json()
        assert "examples" not in answer.text


def test_a_server_for_the_network_answers_to_addresses_and_its_own_names():
    web = client("0.0.0.0", ("demo.example.org",))
    for host, status in [
        ("192.168.0.7:8000", 200),
        ("demo.example.org", 200),
        ("DEMO.example.org", 200),
        ("evil.example", 403),
    ]:
        assert web.get("/api/about", headers={"host": host}).status_code == status, host


# ---- several users -------------------------------------------------------------------------------


def test_users_do_not_share_what_they_work_on(web):
    mine, theirs = (web.post("/api/examples/0").json()["id"] for _ in range(2))
    assert mine != theirs
    mask = stored(Image.new("L", (256, 256), 255))
    assert web.put(f"/api/pictures/{mine}/mask?name=m.png", content=mask).status_code == 200
    before = web.post(f"/api/pictures/{theirs}/segment", json=CLICK).json()
    assert web.post(f"/api/pictures/{mine}/segment", json=CLICK).json()["dice"] != before["dice"]
    assert web.delete(f"/api/pictures/{mine}").status_code == 204
    gone = web.post(f"/api/pictures/{mine}/segment", json=CLICK)
    assert gone.status_code == 404
    assert "load it again" in gone.json()["error"]
    assert web.post(f"/api/pictures/{theirs}/segment", json=CLICK).json() == before


def test_two_users_at_once_get_what_each_gets_alone(web):
    numbers = [web.post(f"/api/examples/{index}").json()["id"] for index in (0, 1)]
    asked = {"budget": 3}
    alone = [web.post(f"/api/pictures/{number}/attack", json=asked).text for number in numbers]
    together = [""] * 2

    def play(user):
        together[user] = web.post(f"/api/pictures/{numbers[user]}/attack", json=asked).text

    threads = [threading.Thread(target=play, args=(user,)) for user in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone
    assert alone[0] != alone[1]


def test_others_are_answered_while_the_models_work():
    busy, gate = server(), threading.Event()
    busy.studio.prepare = lambda picture: gate.wait(20)

    async def visit():
        door = httpx.ASGITransport(app=busy.app("127.0.0.1"))
        async with httpx.AsyncClient(transport=door, base_url=HERE) as web:
            slow = asyncio.create_task(web.post("/api/examples/0"))
            await asyncio.sleep(0.05)
            assert (await web.get("/api/about")).status_code == 200
            assert (await web.get("/api/examples/0/thumbnail")).status_code == 200
            assert not slow.done()
            gate.set()
            assert (await slow).status_code == 201

    asyncio.run(visit())


def test_no_answer_tells_a_path_of_this_machine(web, example):
    told = [web.get("/api/about").text, web.post("/api/examples/0").text, web.get("/page/none.js").text]
    told.append(web.post("/api/pictures?name=../../etc/passwd", content=b"x").text)
    told.append(web.post(f"/api/pictures/{example['id']}/propose", json={"prompter": "persam"}).text)
    for text in told:
        assert str(Path.home()) not in text
        assert "/tmp" not in text
        assert "/etc" not in text
        assert str(PAGE.parent) not in text
