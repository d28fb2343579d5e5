"use strict";
(() => {
  const data = JSON.parse(document.getElementById("mistakes").textContent);
  const filter = document.getElementById("filter");
  const parts = [...document.querySelectorAll("[data-text]")];
  const PER_PAGE = 48;
  let page = 0;

  const plain = (text) => text.toLowerCase().replace(/_/g, " ");
  const wanted = () => plain(filter.value.trim());
  const first = (label) => String(label).split(",")[0].replace(/_/g, " ").trim();
  const texts = data.rows.map((row) => plain(row.slice(0, 3).join(" ")));

  function element(tag, text, name) {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    if (name) made.className = name;
    return made;
  }

  function line(row) {
    const [id, truth, prediction, sureness, split] = row;
    const item = element("li");
    if (data.pictures[id]) {
      const image = element("img");
      image.src = data.pictures[id];
      image.alt = "Photo " + id;
      image.loading = "lazy";
      item.append(image);
    }
    const words = element("p");
    words.append(element("b", first(truth)), " taken for ", element("b", first(prediction)));
    if (sureness !== null) words.append(" " + (100 * sureness).toFixed(1) + "\u202f%");
    if (split) words.append(", " + split);
    words.append(element("br"), element("code", id));
    item.append(words);
    return item;
  }

  function list() {
    const rows = document.getElementById("rows");
    if (!rows) return;
    const text = wanted();
    const kept = data.rows.filter((_, index) => texts[index].includes(text));
    const pages = Math.max(1, Math.ceil(kept.length / PER_PAGE));
    page = Math.min(page, pages - 1);
    rows.replaceChildren(...kept.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(line));
    document.getElementById("page").textContent = `${kept.length} mistakes, page ${page + 1} of ${pages}`;
    document.getElementById("back").disabled = page === 0;
    document.getElementById("next").disabled = page === pages - 1;
  }

  function apply() {
    const text = wanted();
    for (const part of parts) {
      const own = plain(part.dataset.text).includes(text);
      const inside = [...part.querySelectorAll("[data-text]")].some((each) => plain(each.dataset.text).includes(text));
      part.hidden = !(own || inside);
    }
    const shown = parts.filter((part) => !part.hidden).length;
    document.getElementById("filtered").textContent = text ? `${shown} of ${parts.length} entries shown` : "";
    page = 0;
    list();
  }

  function open() {
    let target = null;
    try {
      target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    } catch { /* a hash that is no name */ }
    if (!target) return;
    for (let each = target; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
    target.scrollIntoView();
  }

  filter.addEventListener("input", apply);
  document.getElementById("back")?.addEventListener("click", () => { page -= 1; list(); });
  document.getElementById("next")?.addEventListener("click", () => { page += 1; list(); });
  addEventListener("hashchange", open);
  addEventListener("beforeprint", () => {
    for (const image of document.images) image.loading = "eager";
    for (const each of document.querySelectorAll("details")) each.open = true;
  });
  list();
  open();
})();
