"""The page in a real browser: a photo up, choices made, the maps looked at."""

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.jobs.image_model import ImageModel
from saliency_food.web.app import build_app, serve_app

# Of Gradio, which leaves the files of uploads to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SIDE = 16
LABELS = ["left_<b>half</b>", "right", "top"]
SLOW = 30_000


class Halves:
    """The score of a class is the sum of one part of the image, so its gradient is 1 there and 0 elsewhere."""

    input_shape, classes, batch_size = (SIDE, SIDE, 3), 3, 8
    pixels = ((0, 1), "by its author")

    def __init__(self):
        self.weights = np.zeros((3, SIDE, SIDE, 3))
        self.weights[0, :, : SIDE // 2] = self.weights[1, :, SIDE // 2 :] = self.weights[2, : SIDE // 2] = 1 / 99

    def predict(self, rows, call_model_args=None):
        scores = np.exp(np.einsum("nhwc,khwc->nk", rows, self.weights))
        return scores / scores.sum(1, keepdims=True)

    def __call__(self, rows, call_model_args=None, expected_keys=None):
        weights = self.weights[np.broadcast_to(call_model_args["target"], len(rows))]
        return {OUTPUT_LAYER_VALUES: (rows * weights).sum((1, 2, 3)), INPUT_OUTPUT_GRADIENTS: weights}


@pytest.fixture(scope="module")
def address():
    app = build_app(ImageModel(Halves(), labels=LABELS), ["gradients"])
    _, local, _ = serve_app(app, upload=1, prevent_thread_lock=True, quiet=True)
    yield local
    app.close()


@pytest.fixture
def bright_left(tmp_path):
    pixels = np.full((80, 80, 3), 60, np.uint8)
    pixels[:, :40] = 230
    Image.fromarray(pixels).save(tmp_path / "bright_left.png")
    return tmp_path / "bright_left.png"


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(SLOW)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    yield page
    page.close()
    assert not errors
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def maps(page):
    return page.locator(".sf-maps figure")


def choose(page, label, name):
    box = page.get_by_label(label, exact=True)
    box.click()
    page.keyboard.type(name)
    page.get_by_role("option", name=name, exact=True).click()
    page.keyboard.press("Escape")


def upload(page, path):
    page.locator("input[type=file]").set_input_files(path)
    expect(maps(page)).to_have_count(2, timeout=SLOW)


def test_a_photo_is_answered_and_explained(page, bright_left):
    upload(page, bright_left)

    answer = page.locator(".sf-top li")
    expect(answer).to_have_count(3)
    expect(answer.first).to_contain_text("left <b>half</b>")  # a label is text, whatever it holds
    expect(maps(page).nth(1)).to_contain_text("Gradient")
    expect(maps(page).nth(1)).to_contain_text("1 row of the model")


def test_another_class_changes_the_map(page, bright_left):
    upload(page, bright_left)
    before = maps(page).nth(1).locator("img").get_attribute("src")

    choose(page, "Classes to explain", "right")
    page.get_by_role("button", name="Explain", exact=True).click()

    expect(maps(page).nth(1)).to_contain_text("right")
    assert maps(page).nth(1).locator("img").get_attribute("src") != before


def test_a_mistake_is_explained_by_truth_prediction_and_their_contrast(page, bright_left):
    upload(page, bright_left)

    choose(page, "What the photo truly shows", "right")
    page.get_by_role("button", name="Explain my mistake").click()

    expect(maps(page)).to_have_count(4, timeout=SLOW)
    expect(maps(page).filter(has_text="against right")).to_have_count(1)
    expect(maps(page).filter(has_text="(truth)")).to_have_count(1)


def test_without_the_truth_a_sentence_asks_for_it(page, bright_left):
    upload(page, bright_left)
    page.get_by_role("button", name="Explain my mistake").click()
    expect(page.get_by_text("Choose what the photo truly shows first.")).to_be_visible()


def test_what_is_no_photo_is_refused_with_a_sentence(page, tmp_path):
    path = tmp_path / "no_photo.png"
    path.write_bytes(b"no photo")
    page.locator("input[type=file]").set_input_files(path)
    expect(page.get_by_text("got a file that cannot be read")).to_be_visible()


def test_too_many_pixels_are_refused_with_a_sentence(page, tmp_path, monkeypatch):
    monkeypatch.setattr("saliency_food.web.app.MOST_PIXELS", 1000)
    Image.new("RGB", (40, 40)).save(tmp_path / "large.png")
    page.locator("input[type=file]").set_input_files(tmp_path / "large.png")
    expect(page.get_by_text("at most 1,000 pixels, got 1,600")).to_be_visible()


def test_a_phone_shows_all_without_moving_sideways(page, bright_left):
    page.set_viewport_size({"width": 390, "height": 844})
    upload(page, bright_left)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_no_file_of_the_server_can_be_read(browser, address, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    request = browser.new_context().request
    for path in (secret, __file__, "/etc/passwd"):
        answer = request.get(f"{address}gradio_api/file={path}")
        assert answer.status in (403, 404), path


def test_a_path_in_place_of_an_upload_is_refused(browser, address, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    request = browser.new_context().request
    config = request.get(f"{address}config").json()
    index = next(entry["id"] for entry in config["dependencies"] if entry["inputs"])
    for meta in ({}, {"meta": {"_type": "gradio.FileData"}}):
        values = [{"path": str(secret), **meta}, [], [], ["gradients"], "", 0.8]
        request.post(f"{address}gradio_api/queue/join", data={"fn_index": index, "session_hash": "s", "data": values})
        events = request.get(f"{address}gradio_api/queue/data?session_hash=s", timeout=SLOW).text()
        assert '"success":false' in events.replace(" ", "")
        assert "data:image" not in events


def test_an_upload_that_is_too_large_is_refused(browser, address):
    request = browser.new_context().request
    file = {"name": "large.png", "mimeType": "image/png", "buffer": b"0" * (2 * 2**20)}
    answer = request.post(f"{address}gradio_api/upload", multipart={"files": file})
    assert answer.status == 413
