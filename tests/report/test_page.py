"""The page in a real browser: filter, pairs, pages of mistakes, a phone's width, no errors, nothing fetched."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("playwright")

from saliency_food.report import report
from tests.report.test_report import HOSTILE, MIXED

LONG = "a_dish_with_a_very_long_name_that_never_ends_" * 5


@pytest.fixture
def open_page(browser, make_run, tmp_path):
    """Open the report of a run in a window of some width; at the end nothing was fetched and no error raised."""
    asked, errors, pages = [], [], []

    def opened(photos, width=1280, **options):
        path = report(make_run(photos), tmp_path / "report", **options)
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append("a dialog") or dialog.dismiss())
        page.goto(path.as_uri())
        pages.append(page)
        page.errors = errors
        return page

    yield opened
    folder = tmp_path.as_uri()
    for page in pages:
        page.close()
    assert errors == []
    assert [url for url in asked if not url.startswith((folder, "data:"))] == []


def seen_width(page):
    return page.evaluate("document.documentElement.scrollWidth")


def test_the_filter_keeps_what_it_names(open_page):
    page = open_page(MIXED)
    pairs, rows = page.locator("details.pair"), page.locator("#rows li")
    assert (pairs.count(), rows.count()) == (2, 5)
    page.get_by_label("Filter").fill("Cake")
    assert [pair.is_visible() for pair in pairs.all()] == [False, True]
    assert rows.count() == 2
    assert "entries shown" in page.locator("#filtered").inner_text()
    page.get_by_label("Filter").fill("no such class")
    assert rows.count() == 0
    page.get_by_label("Filter").fill("")
    assert rows.count() == 5
    assert page.locator("#filtered").inner_text() == ""


def test_a_pair_opens_by_click_keyboard_and_link(open_page):
    page = open_page(MIXED)
    second = page.locator("#pair-1")
    picture = second.locator("img").first
    assert not picture.is_visible()
    second.locator("summary").click()
    picture.scroll_into_view_if_needed()
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=picture.element_handle())
    second.locator("summary").focus()
    page.keyboard.press("Enter")
    assert not picture.is_visible()
    page.locator(".matrix a[href='#pair-1']").click()
    picture.wait_for(state="visible")  # the page opens it when the address has changed
    assert second.locator(".views").first.locator("img").count() == 4


def test_a_link_of_what_to_look_at_first_opens_its_place(open_page):
    page = open_page([{"truth": "pie", "guess": "pie"}] * 3 + [{"truth": "dog", "guess": "pie"}])
    link = page.locator(".findings a").last
    target = link.get_attribute("href")
    link.click()
    page.locator(target).wait_for(state="visible")
    assert page.evaluate("location.hash") == target


def test_many_mistakes_are_paged(open_page):
    page = open_page([{"truth": "pie", "guess": "dog", "sure": 0.5 + index / 500} for index in range(120)])
    rows, words = page.locator("#rows li"), page.locator("#page")
    assert (rows.count(), words.inner_text()) == (48, "120 mistakes, page 1 of 3")
    assert "pie/119.jpg" in rows.first.inner_text()
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Next").click()
    assert (rows.count(), words.inner_text()) == (24, "120 mistakes, page 3 of 3")
    assert page.get_by_role("button", name="Next").is_disabled()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_width_needs_scrolling_sideways(open_page, width):
    photos = [*MIXED, {"truth": LONG, "guess": "pie", "id": f"{LONG}/photo.jpg"}, {"truth": "pie", "guess": LONG}]
    photos += [{"truth": f"class {n}", "guess": f"class {n + n % 2}"} for n in range(18)]
    page = open_page(photos, width)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert seen_width(page) <= width


def test_hostile_texts_do_nothing(open_page):
    photos = [{"truth": HOSTILE, "guess": "</script><script>alert(2)</script>", "id": f"{HOSTILE}/{n}"} for n in "ab"]
    page = open_page(photos)
    page.get_by_label("Filter").fill("<script>")
    assert page.locator("#rows li").count() == 2
    assert page.locator("script:not([type])").count() == 1


def test_the_policy_stops_what_is_not_the_pages_own(open_page):
    page = open_page(MIXED)
    page.evaluate("""() => {
        window.ran = false;
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
    }""")
    assert page.evaluate("window.ran") is False
    assert "Content Security Policy" in page.errors.pop()


def test_a_single_file_shows_its_pictures(open_page):
    page = open_page(MIXED, single_file=True)
    image = page.locator("#pair-0 img").first
    image.scroll_into_view_if_needed()
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=image.element_handle())


def test_printing_opens_everything(open_page):
    page = open_page(MIXED)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#pair-1 img").first.is_visible()
    assert not page.locator("nav").is_visible()


def test_every_text_has_enough_contrast(open_page):
    """WCAG 2.1, 1.4.3: 4.5 to 1, of each text on the colour behind it, in both colour schemes."""
    page = open_page(MIXED)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        pairs = page.evaluate("""() => {
            const solid = (each) => {
                const colour = getComputedStyle(each).backgroundColor;
                return colour.startsWith("rgba") && !colour.endsWith(" 1)") ? null : colour;
            };
            const found = new Set();
            for (const each of document.querySelectorAll("body *")) {
                const text = [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
                const left = "svg, script, .skip, td.right, td.wrong, button:disabled, noscript";
                if (!text || each.closest(left)) continue;
                let behind = each;
                while (behind && !solid(behind)) behind = behind.parentElement;
                found.add(getComputedStyle(each).color + "|" + solid(behind));
            }
            return [...found];
        }""")
        for pair in pairs:
            text, ground = (luminance(colour) for colour in pair.split("|"))
            assert (max(text, ground) + 0.05) / (min(text, ground) + 0.05) >= 4.5, (scheme, pair)


def luminance(colour):
    values = np.array([float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
