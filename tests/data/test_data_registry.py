from __future__ import annotations

import hashlib
import importlib.metadata
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pooch
import pytest
import yaml

from graphcl.data import (
    Dataset,
    GraphRecipe,
    InteractionRecipe,
    dataset_info,
    find_dataset_file,
    formats,
    graph_recipe,
    leave_one_out,
    list_datasets,
    load_dataset,
    read_interactions,
    recipe_files,
    registry,
)
from graphcl.errors import InputError

SEQUENCES = b"1 5 3 8 5\n2 3 8\n"
TABLE = b"user_id:token\titem_id:token\n1\t5\n2\t3\n"


def recipe(content: bytes = SEQUENCES, **changes: Any) -> dict[str, Any]:
    file = {
        "name": "sequences.txt",
        "role": "interactions",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "source": "https://example.org/a",
        "mirrors": ["https://example.org/b"],
    }
    return {
        "name": "tiny",
        "description": "tiny",
        "licence": "CC0-1.0",
        "format": "sequences",
        "files": [file],
        "expected": {"users": 2, "items": 3, "interactions": 6},
        **changes,
    }


class Shelf:
    """A folder of recipes, a data folder and a cache, all empty, in place of the real ones."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recipes, self.data, self.cache = folder / "recipes", folder / "data", folder / "cache"
        for each in (self.recipes, self.data, self.cache):
            each.mkdir()
        monkeypatch.setattr(registry, "_recipe_paths", lambda: self.recipes.glob("*.yaml"))
        monkeypatch.setattr(registry, "_cache_folder", lambda: self.cache)
        monkeypatch.setenv("GRAPHCL_DATA", str(self.data))

    def add_recipe(self, content: dict[str, Any], name: str = "tiny") -> None:
        (self.recipes / f"{name}.yaml").write_text(yaml.safe_dump(content))

    def put(self, root: Path, content: bytes = SEQUENCES, name: str = "sequences.txt") -> Path:
        path = root / "tiny" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return Shelf(tmp_path, monkeypatch)


class Web:
    """Stands in for the downloader: serves what it is given, fails for the rest."""

    def __init__(self, pages: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        web = self

        class Downloader:
            def __init__(self, **options: Any) -> None:
                assert options["progressbar"]

            def __call__(self, url: str, output_file: str, _: object) -> None:
                web.asked.append(url)
                Path(output_file).write_bytes(pages.get(url, b"half")[:4])
                if url not in pages:
                    raise ConnectionError("no route")
                Path(output_file).write_bytes(pages[url])

        monkeypatch.setattr(pooch, "HTTPDownloader", Downloader)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_shipped_recipes_are_valid_and_complete() -> None:
    recipes = {found.name: found for found in list_datasets()}
    assert set(recipes) >= {"ml-100k", "amazon-beauty", "amazon-sports", "amazon-toys", "yelp", "synthetic-shop"}
    for found in recipes.values():
        assert found.description
        assert found.licence
        assert all(file.source.startswith("https://") for file in found.files)
        assert found.counts or found.format == "generator"
        assert (found.kind == "interactions") == isinstance(found, InteractionRecipe)
    beauty = recipes["amazon-beauty"]
    assert isinstance(beauty, InteractionRecipe)
    assert beauty.split == "leave-one-out"
    assert beauty.counts == {"users": 22363, "items": 12101, "interactions": 198502}
    assert [(file.name, file.bytes) for file in beauty.files] == [
        ("sequences.txt", 1090094),
        ("item2attributes.json", 305674),
    ]
    assert recipes["ml-100k"].files[0].package is not None


def test_the_generator_needs_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHCL_DATA", "/nowhere/at/all")
    shop = load_dataset("synthetic-shop")
    assert (shop.interactions.num_users, shop.interactions.report.source) == (2000, "synthetic-shop")
    assert shop.split().counts["test"] == 2000


def test_unknown_names_suggest_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("amazon-beuty", "Amazon_Beauty"):
        with pytest.raises(InputError, match=f"no data set or file '{name}'; did you mean 'amazon-beauty'.*ml-100k"):
            load_dataset(name)
    with pytest.raises(InputError, match=r"no/such.csv: there is no such file"):
        load_dataset("no/such.csv")
    with pytest.raises(InputError, match="did you mean 'ml-100k'"):
        dataset_info("ml100k")


def test_a_path_is_read_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    path.write_bytes(SEQUENCES)
    monkeypatch.chdir(tmp_path)
    for given in (path, str(path), "log"):
        loaded = load_dataset(given)
        assert (loaded.interactions.num_interactions, loaded.recipe, loaded.protocol) == (6, None, "leave-one-out")
    assert load_dataset(path, format="sequences").name == str(path)


def test_places_are_searched_in_order(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "shipper" / "data").mkdir(parents=True)
    (site / "shipper" / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (site / "shipper" / "data" / "log.txt").write_bytes(SEQUENCES)
    (site / "shipper-1.0.dist-info").mkdir()
    (site / "shipper-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: shipper\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(site))
    content = recipe()
    content["files"][0]["package"] = {"name": "shipper", "path": "shipper/data/log.txt"}
    shelf.add_recipe(content)
    tiny = dataset_info("tiny")
    assert find_dataset_file(tiny, tiny.files[0]) == site / "shipper" / "data" / "log.txt"
    assert load_dataset("tiny").interactions.num_users == 2
    assert "shipper" not in sys.modules
    cached = shelf.put(shelf.cache)
    assert find_dataset_file(tiny, tiny.files[0]) == cached
    own = shelf.put(shelf.data)
    assert find_dataset_file(tiny, tiny.files[0]) == own
    monkeypatch.delenv("GRAPHCL_DATA")
    assert find_dataset_file(tiny, tiny.files[0]) == cached


@pytest.mark.parametrize("place", ["data", "cache"])
def test_a_checksum_that_fails_is_refused(shelf: Shelf, place: str) -> None:
    shelf.add_recipe(recipe())
    path = shelf.put(getattr(shelf, place), b"1 5 3 9 5\n2 3 8\n")
    actual, expected = hashlib.sha256(path.read_bytes()).hexdigest(), hashlib.sha256(SEQUENCES).hexdigest()
    with pytest.raises(InputError, match=f"{path}: its checksum fails: sha256 is {actual}, the recipe says {expected}"):
        load_dataset("tiny")


def test_download_goes_through_mirrors_into_the_cache(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.add_recipe(recipe())
    web = Web({"https://example.org/b": SEQUENCES}, monkeypatch)
    assert load_dataset("tiny").interactions.num_interactions == 6
    assert web.asked == ["https://example.org/a", "https://example.org/b"]
    assert files_below(shelf.cache) == ["tiny/sequences.txt"]
    load_dataset("tiny")
    assert len(web.asked) == 2


def test_a_failed_download_leaves_nothing(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.add_recipe(recipe())
    Web({}, monkeypatch)
    with pytest.raises(InputError, match=r"cannot be downloaded \(https://.*/a: ConnectionError.*set GRAPHCL_DATA"):
        load_dataset("tiny")
    Web({"https://example.org/a": b"something else"}, monkeypatch)
    with pytest.raises(InputError, match=r"https://example\.org/a: its checksum fails"):
        load_dataset("tiny")
    assert files_below(shelf.cache) == []


def test_graphcl_data_must_be_a_folder(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.add_recipe(recipe())
    monkeypatch.setenv("GRAPHCL_DATA", str(shelf.data / "missing"))
    with pytest.raises(InputError, match="missing: GRAPHCL_DATA is no folder; set it to the folder"):
        load_dataset("tiny")


def test_counts_must_be_those_of_the_recipe(shelf: Shelf) -> None:
    shelf.add_recipe(recipe(expected={"users": 3}))
    shelf.put(shelf.data)
    with pytest.raises(InputError, match="tiny has 2 users, its recipe expects 3"):
        load_dataset("tiny")


def test_features_are_loaded_when_asked_for(shelf: Shelf) -> None:
    lists = b'{"5": [1, 2], "3": [1]}'
    content = recipe()
    side = {**content["files"][0], "name": "attributes.json", "role": "item_features"}
    content["files"].append({**side, "sha256": hashlib.sha256(lists).hexdigest(), "bytes": len(lists)})
    shelf.add_recipe(content)
    shelf.put(shelf.data)
    assert load_dataset("tiny").interactions.item_features is None
    shelf.put(shelf.data, lists, "attributes.json")
    features = load_dataset("tiny", features=True).interactions.item_features
    assert features is not None
    assert features.rows() == [(5, [1, 2]), (3, [1])]
    with pytest.raises(InputError, match="user is set by its recipe"):
        load_dataset("tiny", user="x")


def test_files_beside_an_atomic_file_are_not_read_unchecked(shelf: Shelf) -> None:
    content = recipe(TABLE, format="atomic", expected={})
    content["files"][0]["name"] = "tiny.inter"
    shelf.add_recipe(content)
    shelf.put(shelf.data, TABLE, "tiny.inter")
    shelf.put(shelf.data, b"broken", "tiny.item")
    assert load_dataset("tiny").interactions.item_features is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"files": []}, "either a generator or files"),
        ({"format": "generator"}, "either a generator or files"),
        ({"name": "small"}, "the recipe calls itself 'small'"),
        ({"split": "random"}, "split: Input should be 'leave-one-out'"),
        ({"format": "stone"}, "format: Value error, the format 'stone' is none of csv, .*generator"),
        ({"kind": "graph"}, "columns: Extra inputs|format: Value error, the format 'sequences' is none of generator"),
        ({"kind": "crystal"}, "kind: Input should be 'graph' or 'heterogeneous'"),
        ({"files": [recipe()["files"][0]] * 2}, "two files have one role"),
    ],
)
def test_bad_recipes_are_named(shelf: Shelf, changes: dict[str, Any], message: str) -> None:
    shelf.add_recipe(recipe(**changes))
    with pytest.raises(InputError, match=f"tiny.yaml: .*{message}"):
        dataset_info("tiny")
    (shelf.recipes / "tiny.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"tiny.yaml: this is no YAML"):
        list_datasets()


def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Pretend that the package was installed from a wheel: no recipes beside it."""
    room = tmp_path / "site-packages" / "graphcl" / "data"
    room.mkdir(parents=True)
    monkeypatch.setattr(registry, "__file__", str(room / "registry.py"))
    shared = tmp_path / "share" / "graphcl" / "datasets"
    shared.mkdir(parents=True)
    (shared / "tiny.yaml").write_text(yaml.safe_dump(recipe()))
    return shared


def test_recipes_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path)
    info = tmp_path / "site-packages" / "graphcl-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: graphcl\nVersion: 9\n")
    (info / "RECORD").write_text("../share/graphcl/datasets/tiny.yaml,,\ngraphcl/data/registry.py,,\n")
    wheel = importlib.metadata.PathDistribution(info)
    monkeypatch.setattr(importlib.metadata, "files", lambda name: wheel.files if name == "graphcl" else None)
    assert [found.name for found in list_datasets()] == ["tiny"]


def test_recipes_without_a_list_of_installed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = install(monkeypatch, tmp_path)

    def no_package(_: str) -> None:
        raise importlib.metadata.PackageNotFoundError("graphcl")

    monkeypatch.setattr(importlib.metadata, "files", no_package)
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    assert [found.name for found in list_datasets()] == ["tiny"]
    (shared / "tiny.yaml").unlink()
    with pytest.raises(InputError, match="recipes are not installed"):
        list_datasets()


def graph_content(content: bytes = b"1 2\n", **changes: Any) -> dict[str, Any]:
    edges = {**recipe(content)["files"][0], "name": "edges.txt", "role": "edges"}
    about = {"name": "tiny", "description": "tiny", "licence": "CC0-1.0", "kind": "graph", "format": "edge-list"}
    return {**about, "files": [edges], "expected": {"nodes": 2, "edges": 1}, "options": {"target": "a"}, **changes}


@pytest.fixture
def edge_list_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(formats.READERS["graph"], "edge-list", "graphcl.data.text_table:check_utf8")


@pytest.mark.usefixtures("edge_list_format")
def test_graph_recipes_have_their_own_counts_and_options(shelf: Shelf) -> None:
    shelf.add_recipe(graph_content())
    tiny = graph_recipe("tiny")
    assert isinstance(tiny, GraphRecipe)
    assert (tiny.kind, tiny.counts, tiny.options) == ("graph", {"nodes": 2, "edges": 1}, {"target": "a"})
    path = shelf.put(shelf.data, b"1 2\n", "edges.txt")
    assert recipe_files(tiny) == {"edges": path}
    assert recipe_files(tiny, ["labels"]) == {}
    path.write_bytes(b"1 3\n")
    with pytest.raises(InputError, match=r"edges\.txt: its checksum fails"):
        recipe_files(tiny)


@pytest.mark.usefixtures("edge_list_format")
def test_graphs_and_interactions_are_not_mixed_up(shelf: Shelf) -> None:
    shelf.add_recipe(graph_content())
    with pytest.raises(InputError, match="tiny is a graph, not a log of interactions; load it with load_graph"):
        load_dataset("tiny")
    shelf.add_recipe(recipe())
    with pytest.raises(InputError, match="tiny is a log of interactions, not a graph; load it with load_dataset"):
        graph_recipe("tiny")


@pytest.mark.usefixtures("edge_list_format")
def test_a_graph_has_one_source(shelf: Shelf) -> None:
    faults: list[dict[str, Any]] = [{"generator": {"nodes": 3}}, {"files": []}, {"format": "generator"}]
    for changes in faults:
        shelf.add_recipe(graph_content(**changes))
        with pytest.raises(InputError, match="either a generator or files"):
            dataset_info("tiny")
    shelf.add_recipe(graph_content(generator={"nodes": 3}, format="generator", files=[]))
    assert graph_recipe("tiny").generator == {"nodes": 3}


def read_with_split(found: InteractionRecipe, paths: dict[str, Path]) -> Dataset:
    split = leave_one_out(read_interactions(paths["interactions"]))
    return Dataset(found.name, split.interactions, found, found.split, published_split=split)


def test_a_format_of_its_own_brings_its_split(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(formats.READERS["interactions"], "special", f"{__name__}:read_with_split")
    shelf.add_recipe(recipe(format="special", split="as-published", expected={"users": 2}))
    shelf.put(shelf.data)
    loaded = load_dataset("tiny")
    assert loaded.split() is loaded.published_split
    with pytest.raises(InputError, match="no split was published with log"):
        Dataset("log", loaded.interactions, protocol="as-published").split()
    shelf.add_recipe(recipe(format="special", expected={"users": 3}))
    with pytest.raises(InputError, match="tiny has 2 users, its recipe expects 3"):
        load_dataset("tiny")


def test_every_format_has_a_reader() -> None:
    for kind, readers in formats.READERS.items():
        for name in readers:
            assert callable(formats.reader_of(kind, name))
