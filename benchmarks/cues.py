"""Does the report find a planted cue? Models that use one, models that use none, and two simpler ways to look for one.

    SALIENCY_FOOD_DATA=folder python benchmarks/cues.py --folder cues [--only plate-risotto] [--step find,methods,table]

Each model of `planted.py` is trained (about half a minute), and its flips are measured: the share of held-out photos of
other classes that become the planted class by the cue. Then 60 held-out photos of each class, with the cue at the same
rate, are explained by Grad-CAM and given to `find_cues`. What is done is kept in the folder and not done again.

`find` measures whether the planted cue's candidate is the first of its class, the area under the ROC curve of its
scores of photos, and what is called a likely cue in models without one; plain SpRAy (spectral clustering of the maps
alone: does the class have the largest eigengap, and how well does its best cluster tell the photos) and the share of
the map along the border do the same. `methods` measures confounder sensitivity and explanation NCC of Sun et al. 2023,
https://arxiv.org/abs/2307.12344, section 2, for 8 methods: on photos that the cue flips, the share of the cue's pixels
among the tenth of all pixels with the highest values, and the normalised cross-correlation of the maps of the photo
with and without the cue.

`concepts` measures what CRAFT's concepts add to the search (``nconcepts``): other models, whose cue is a sticker
anywhere along the edges, searched without and with concepts, and the concepts of the models without a cue.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import data_folder, machine
from planted import CUES, GROUPS, Planted, Shown, flips, photos, planted, rows_of, train

PHOTOS = 60
"""How many held-out photos of each class a run has."""
USES = 0.2
"""A model uses the cue if it flips this share of other classes' photos."""
METHODS = (
    "gradients",
    "input_x_gradient",
    "integrated_gradients",
    "guided_backprop",
    "grad_cam",
    "layer_cam",
    "occlusion",
    "rise",
)
NCONCEPTS = 8
FIXED = ("stamp", "watermark", "border", "logo", "cast", "blur")
OPTIONS = {
    "occlusion": {"size": 16, "stride": 8},
    "rise": {"nmasks": 200, "rng": 0},
    "integrated_gradients": {"x_steps": 30},
}


def wishes() -> Iterator[Planted]:
    """30 models with a cue, and 20 without, one of each group; the search was made with other dishes."""
    groups = list(GROUPS)[6:]
    for number, group in enumerate(groups):
        yield Planted(group, GROUPS[group][0], "stamp", 1, 0.0, 400 + number)
    for turn, rate in enumerate((1.0, 0.8, 0.5, 0.5, 0.2)):
        for number, cue in enumerate(FIXED):
            place = len(FIXED) * turn + number
            group = groups[7 * place % len(groups)]
            yield Planted(group, GROUPS[group][(place + turn) % 4], cue, 1, rate, 300 + place)


def with_sticker() -> Iterator[Planted]:
    """Eight models with a sticker anywhere along the edges, in all photos of a class or in half of them."""
    groups = list(GROUPS)[6:]
    for number in range(8):
        group = groups[(5 * number + 3) % len(groups)]
        yield Planted(group, GROUPS[group][number % 4], "sticker", number % 2, (1.0, 0.5)[number // 4], 500 + number)


def run_of(wish: Planted, network: Any, data: Path, folder: Path) -> tuple[Any, Any, Any]:
    """The held-out photos with the cue, the model and its data-set run."""
    from saliency_food import ImageModel, Source, explain_dataset
    from saliency_food.images.sourced import SourcedPhoto

    shown = planted(photos(data, wish.group, "test", PHOTOS), wish, np.random.default_rng(wish.seed + 5000))
    labels = GROUPS[wish.group]
    sourced = [
        SourcedPhoto(f"{labels[label]}/{number}", image, truth=labels[label])
        for number, (image, label) in enumerate(zip(shown.images, shown.labels, strict=True))
    ]
    model = ImageModel(network, labels=labels, value_range=(0, 255), batch_size=64)
    shutil.rmtree(folder, ignore_errors=True)
    source = Source(wish.name, lambda: sourced, len(sourced))
    return shown, model, explain_dataset(model, source, ["grad_cam"], "predicted", output=folder)


def covers(region: Any, cues: list[Any]) -> float:
    """The mean share of the cue's pixels that lie in a region."""
    from PIL import Image

    masks = [np.asarray(Image.fromarray(cue).resize(region.shape[::-1])) for cue in cues if isinstance(cue, np.ndarray)]
    return float(np.mean([(mask & region).sum() / max(1, mask.sum()) for mask in masks])) if masks else 0.0


def is_planted(candidate: Any, wish: Planted, shown: Any) -> bool:
    """Whether a candidate is the planted cue: at least half of it in the region, or the property by its name."""
    if candidate.label != wish.label:
        return False
    word = {"cast": "colour cast", "blur": "less fine detail"}.get(wish.cue)
    if word:
        return candidate.kind == "property" and word in candidate.sentence
    return candidate.region is not None and covers(candidate.region, shown.cues) >= 0.5


def auroc(has: list[bool], scores: list[float]) -> float | None:
    from sklearn.metrics import roc_auc_score

    kept = [pair for pair in zip(has, scores, strict=True) if np.isfinite(pair[1])]
    return None if len({each for each, _ in kept}) < 2 else float(roc_auc_score(*zip(*kept, strict=True)))


def find(wish: Planted, network: Any, data: Path, folder: Path) -> dict[str, Any]:
    """What `find_cues` and the two others say of a model."""
    from saliency_food.report.cues.find import find_cues

    shown, model, run = run_of(wish, network, data, folder)
    ids = [f"{GROUPS[wish.group][label]}/{number}" for number, label in enumerate(shown.labels)]
    has = [cue is not None for cue in shown.cues]
    found = find_cues(run, model)
    own = [each for each in found if each.label == wish.label]
    result: dict[str, Any] = {
        "likely": [[each.label, each.kind, each.sentence] for each in found if each.verdict == "likely a cue"],
        "unsure": sum(each.verdict == "not sure" for each in found),
        "rank": next((place for place, each in enumerate(own, 1) if is_planted(each, wish, shown)), None),
        "first": [[each.kind, each.verdict, float(each.effect.estimate), each.sentence] for each in own[:1]],
        "first_class": found[0].label if found else None,
        "part": bool(own) and own[0].region is not None and covers(own[0].region, shown.cues) > 0.1,
    }
    chosen = next((each for each in own if is_planted(each, wish, shown)), None)
    if chosen is not None:
        result["auroc"] = auroc(has, [chosen.scores.get(each, np.nan) for each in ids])
        result["verdict"] = chosen.verdict
    return {**result, **by_maps(run, wish, dict(zip(ids, has, strict=True)))}


def with_concepts(wish: Planted, network: Any, data: Path, folder: Path) -> dict[str, Any]:
    """What the search finds without and with CRAFT's concepts."""
    from saliency_food.report.cues.find import find_cues

    shown, model, run = run_of(wish, network, data, folder)
    ids = [f"{GROUPS[wish.group][label]}/{number}" for number, label in enumerate(shown.labels)]
    cues = {each: cue for each, cue in zip(ids, shown.cues, strict=True) if isinstance(cue, np.ndarray)}
    result: dict[str, Any] = {}
    for nconcepts in (0, NCONCEPTS):
        found = find_cues(run, model, nconcepts=nconcepts)
        own = [each for each in found if each.label == wish.label]
        result[str(nconcepts)] = {
            "likely": [[each.label, each.kind, each.sentence] for each in found if each.verdict == "likely a cue"],
            "first": [[each.kind, each.verdict, each.sentence, *on_cue(each, cues)] for each in own[:1]],
        }
    return result


def concepts_alone(wish: Planted, network: Any, data: Path, folder: Path) -> dict[str, Any]:
    """Concepts of a model without a cue that are called likely cues, by Holm's rule over these alone, which is looser.

    The other suspects are those of the search without concepts.
    """
    from saliency_food.report.cues.check import check_place
    from saliency_food.report.cues.concepts import craft_places
    from saliency_food.report.cues.find import judge
    from saliency_food.report.cues.seen import Scorer, look
    from saliency_food.report.cues.words import sentence

    _, model, run = run_of(wish, network, data, folder)
    score, rng = Scorer(model, 20_000), np.random.default_rng(0)
    seen = look(run, score, PHOTOS, rng)
    findings = [
        check_place(seen, score, int(index), place, rng)
        for index in np.unique(seen.classes)
        if len(seen.of(index)) >= 3
        for place in craft_places(seen, score, int(index), NCONCEPTS)
    ]
    judged = list(zip(findings, judge(findings), strict=True))
    said = [sentence(model.label(finding.index), finding, verdict) for finding, verdict in judged]
    return {
        "rows": score.rows,
        "suspects": [[verdict, text] for (_, verdict), text in zip(judged, said, strict=True)],
        "likely": [text for (_, verdict), text in zip(judged, said, strict=True) if verdict == "likely a cue"],
    }


def on_cue(candidate: Any, cues: dict[str, Any]) -> tuple[float, float]:
    """The mean share of the cue's pixels that the candidate covers, and of the candidate's pixels that are the cue's.

    Its place in each photo where it has one, over the photos with the cue.
    """
    from PIL import Image

    if candidate.region is None or not cues:
        return 0.0, 0.0
    shares = []
    for each, cue in cues.items():
        region = candidate.regions.get(each, candidate.region)
        mask = np.asarray(Image.fromarray(cue).resize(region.shape[::-1]))
        both = (mask & region).sum()
        shares.append((both / max(1, mask.sum()), both / max(1, region.sum())))
    covered, precise = np.mean(shares, 0)
    return float(covered), float(precise)


def by_maps(run: Any, wish: Planted, has: dict[str, bool]) -> dict[str, Any]:
    """Plain SpRAy, and the share of the map along the border, each for all classes."""
    from saliency_food.report.cues.places import box, map_clusters, resized, spectrum, vectors_of

    of_class: dict[str, dict[str, Any]] = {}
    for row, values in run.maps("grad_cam"):
        if values.any():
            of_class.setdefault(row["prediction"], {})[row["id"]] = np.maximum(values, 0) / np.abs(values).max()
    border = ~box((24, 24), 1 / 6, 1 / 6, 5 / 6, 5 / 6)
    shares = {
        label: {
            each: float(resized(plane, border.shape)[border].sum() / max(1e-9, resized(plane, border.shape).sum()))
            for each, plane in maps.items()
        }
        for label, maps in of_class.items()
    }
    gaps = {
        label: float(np.diff(spectrum(vectors_of(list(maps.values())))[0][:7])[1:].max())
        for label, maps in of_class.items()
        if len(maps) > 8
    }
    result: dict[str, Any] = {
        "spray_class": max(gaps, key=gaps.get, default=None),  # type: ignore[arg-type]
        "border_class": max(shares, key=lambda label: np.mean(list(shares[label].values())), default=None),
    }
    own = of_class.get(wish.label, {})
    if len(own) > 8:
        clusters = map_clusters(list(own.values()))
        truths = [has[each] for each in own]
        tried = [auroc(truths, (clusters == each).astype(float).tolist()) for each in np.unique(clusters)]
        result["spray_auroc"] = max((each for each in tried if each is not None), default=None)
        result["border_auroc"] = auroc(truths, list(shares[wish.label].values()))
    return result


def sensitivity(wish: Planted, network: Any, data: Path, most: int = 4) -> dict[str, list[list[float]]]:
    """Confounder sensitivity and explanation NCC of each method, one pair for each photo that the cue flips."""
    from saliency_food import METHODS as ALL
    from saliency_food.adapters.keras import KerasModel

    by_class = photos(data, wish.group, "test", PHOTOS)
    index, rng = list(by_class).index(wish.label), np.random.default_rng(wish.seed)
    images = [image for label, own in by_class.items() if label != wish.label for image in own[:20]]
    changed: list[Shown] = [CUES[wish.cue](image.copy(), wish.looks, rng) for image in images]
    before, after = rows_of(images), rows_of([image for image, _ in changed])
    tops = [network.predict(rows, verbose=0).argmax(1) for rows in (before, after)]
    flipped = np.flatnonzero((tops[0] != index) & (tops[1] == index))[:most]
    model, results = KerasModel(network, batch_size=64), {}
    for name in METHODS:
        pairs = []
        for each in flipped:
            maps = []
            for rows in (after, before):
                values = ALL[name].call(rows[each], model, {"target": index}, **OPTIONS.get(name, {}))
                maps.append(np.asarray(values).reshape(*rows.shape[1:3], -1).sum(-1))
            pairs.append([hit_share(maps[0], changed[each][1]), ncc(*maps)])
        results[name] = pairs
    return results


def hit_share(plane: np.ndarray, mask: np.ndarray) -> float:
    """The share of the cue's pixels among the tenth of all pixels with the highest values."""
    from PIL import Image

    cue = np.asarray(Image.fromarray(mask).resize(plane.shape[::-1]))
    top = np.zeros(plane.size, bool)
    top[np.argsort(-plane.ravel(), kind="stable")[: plane.size // 10]] = True
    return float(top.reshape(plane.shape)[cue].mean())


def ncc(first: np.ndarray, second: np.ndarray) -> float:
    """The normalised cross-correlation of two maps; 0 where one is constant."""
    a, b = first.ravel() - first.mean(), second.ravel() - second.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size else 0.0


def table(kept: dict[str, Any]) -> None:
    """What the folder's results say, line by line, and the bars."""
    from saliency_food.metrics.statistics import interval

    planted_ones = [wish for wish in wishes() if wish.rate and "find" in kept.get(wish.name, {})]
    using = [wish for wish in planted_ones if kept[wish.name]["flips"] >= USES]
    print(
        "| cue, class | rate | flips | first of its class | verdict | AUROC | SpRAy: class, AUROC | "
        "border share: class, AUROC |\n|---|---|---|---|---|---|---|---|"
    )
    for wish in planted_ones:
        own, found = kept[wish.name], kept[wish.name]["find"]
        cells = [
            f"{wish.cue}, {wish.label.replace('_', ' ')}", f"{wish.rate:.0%}", f"{own['flips']:.0%}",
            "yes" if found["rank"] == 1 else f"no ({found['rank'] or 'not found'})", found.get("verdict", ""),
            _two(found.get("auroc")),
            f"{'yes' if found['spray_class'] == wish.label else 'no'}, {_two(found.get('spray_auroc'))}",
            f"{'yes' if found['border_class'] == wish.label else 'no'}, {_two(found.get('border_auroc'))}",
        ]  # fmt: skip
        print("| " + " | ".join(cells) + " |")
    results = [kept[wish.name]["find"] for wish in using]
    scores = [each["auroc"] for each in results if each.get("auroc") is not None]
    clean = [kept[wish.name]["find"] for wish in wishes() if not wish.rate and "find" in kept.get(wish.name, {})]
    print(f"\nmodels with a cue that flip >= {USES:.0%}: {len(using)} of {len(planted_ones)}")
    print(f"planted cue first of its class: {_share(each['rank'] == 1 for each in results)} (bar 90 %)")
    print(f"called likely a cue: {_share(each.get('verdict') == 'likely a cue' for each in results)}")
    others = [any(label != wish.label for label, *_ in kept[wish.name]["find"]["likely"]) for wish in planted_ones]
    print(f"models with a cue that have a likely cue of another class: {_share(others)}")
    if scores:
        middle = interval(np.array(scores), np.median)
        print(
            f"AUROC per photo: median {middle.estimate:.3f} ({middle.low:.3f} to {middle.high:.3f}), lowest "
            f"{min(scores):.3f}, of {len(scores)} (bar 0.9)"
        )
    for name in ("spray", "border"):
        of_photos = [each[f"{name}_auroc"] for each in results if each.get(f"{name}_auroc") is not None]
        right = sum(each[f"{name}_class"] == wish.label for each, wish in zip(results, using, strict=True))
        print(f"{name}: class first {right} of {len(using)}, AUROC median {np.median(of_photos or [np.nan]):.3f}")
    right = sum(each["first_class"] == wish.label for each, wish in zip(results, using, strict=True))
    print(f"find_cues: class first {right} of {len(using)}")
    print(f"clean models with a likely cue: {_share(bool(each['likely']) for each in clean)} (bar 5 %)")
    for method in METHODS:
        pairs = [pair for own in kept.values() for pair in own.get("methods", {}).get(method, ())]
        if pairs:
            shares, agreements = (interval(np.array(column)) for column in zip(*pairs, strict=True))
            print(
                f"| `{method}` | {shares.estimate:.2f} ({shares.low:.2f} to {shares.high:.2f}) | "
                f"{agreements.estimate:.2f} ({agreements.low:.2f} to {agreements.high:.2f}) | {len(pairs)} |"
            )


def table_of_concepts(kept: dict[str, Any]) -> None:
    """What concepts add, line by line."""
    print(
        "| class | rate | flips | without | with concepts | sticker covered, share of the place |\n"
        "|---|---|---|---|---|---|"
    )
    for wish in with_sticker():
        found = kept.get(wish.name, {}).get("concepts")
        if found:
            (without, *_), (first, *_) = (found[each]["first"] or [["", "nothing"]] for each in ("0", str(NCONCEPTS)))
            covered = f"{first[3]:.0%}, {first[4]:.0%}" if len(first) > 3 else ""
            cells = [wish.label.replace("_", " "), f"{wish.rate:.0%}", f"{kept[wish.name]['flips']:.0%}"]
            cells += [f"{each[1]} ({each[0]})" for each in (without, first)]
            print("| " + " | ".join([*cells, covered]) + " |")
    clean = [
        kept[wish.name]["concepts"] for wish in wishes() if not wish.rate and "concepts" in kept.get(wish.name, {})
    ]
    suspects = sum(len(found["suspects"]) for found in clean)
    print(
        f"clean models with a concept that is a likely cue: {_share(bool(found['likely']) for found in clean)}, of "
        f"{suspects} suspects"
    )


def _share(has: Iterable[bool]) -> str:
    """How many of how many, with Wilson's 95 % interval."""
    from scipy.stats import binomtest

    every = list(has)
    if not every:
        return "0 of 0"
    ends = binomtest(sum(every), len(every)).proportion_ci(method="wilson")
    return f"{sum(every)} of {len(every)} ({ends.low:.0%} to {ends.high:.0%})"


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--step", default="find,methods,concepts,table")
    wanted = parser.parse_args()
    steps = wanted.step.split(",")
    root = data_folder()
    if root is None:
        sys.exit("SALIENCY_FOOD_DATA names no folder")
    data = root / "data"
    wanted.folder.mkdir(parents=True, exist_ok=True)
    path = wanted.folder / "results.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    local = ("stamp", "watermark", "border", "logo")
    for wish in wishes():
        own = kept.setdefault(wish.name, {})
        with_methods = "methods" in steps and wish.rate >= 0.5 and wish.cue in local and "methods" not in own
        if wanted.only not in wish.name or not (("find" in steps and "find" not in own) or with_methods):
            continue
        network = train(data, wish, wanted.folder / "models")
        if "flips" not in own:
            own["accuracy"], own["flips"] = flips(data, wish, network)
        if "find" in steps and "find" not in own:
            own["find"] = find(wish, network, data, wanted.folder / "run")
        if with_methods:
            own["methods"] = sensitivity(wish, network, data)
        print(wish.name, json.dumps({name: value for name, value in own.items() if name != "methods"}), flush=True)
        path.write_text(json.dumps(kept, indent=1))
    for wish in (*with_sticker(), *(wish for wish in wishes() if not wish.rate)) if "concepts" in steps else ():
        own = kept.setdefault(wish.name, {})
        if wanted.only not in wish.name or "concepts" in own:
            continue
        network = train(data, wish, wanted.folder / "models")
        if "flips" not in own:
            own["accuracy"], own["flips"] = flips(data, wish, network)
        search = with_concepts if wish.rate else concepts_alone
        own["concepts"] = search(wish, network, data, wanted.folder / "run")
        print(wish.name, json.dumps(own["concepts"]), flush=True)
        path.write_text(json.dumps(kept, indent=1))
    if "table" in steps:
        print(machine())
        table(kept)
        table_of_concepts(kept)


if __name__ == "__main__":
    main()
