"""Commands on a finished run: evaluate, recommend, embed, score, retrieve, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from graphcl.cli.options import refuse_options
from graphcl.cli.output import print_json, print_metrics, print_protocol, printed_warnings, write_output
from graphcl.errors import InputError

if TYPE_CHECKING:
    import polars

    from graphcl.data import Interactions
    from graphcl.pipelines.ranking import OnUnsupported, RankingPipeline

RunFolder = Annotated[Path, typer.Argument(help="Run folder that `graphcl train` wrote.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]

_DEFAULT_TOP = 20
_TABLE_SUFFIXES = (".parquet", ".csv", ".jsonl")
_VECTOR_SUFFIXES = (".parquet", ".npz")
_USER_TABLES = (".parquet", ".pq", ".csv", ".tsv", ".jsonl", ".ndjson", ".user", ".inter")


def evaluate(
    run: RunFolder,
    split: Annotated[Literal["test", "valid"], typer.Option(help="Part of the data to measure.")] = "test",
    as_json: Json = False,
) -> None:
    """Recompute the metrics of a run from its saved artefacts."""
    from graphcl.pipelines import load_pipeline

    result = load_pipeline(run).evaluate(split)
    if as_json:
        print_json(result.to_dict())
        return
    print_metrics(f"{run} ({split})", result.metrics.to_dict())
    print_protocol(result.protocol)


def recommend(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="File to write: .parquet, .csv or .jsonl.")],
    users: Annotated[
        str | None, typer.Option(help="'all', or a file of external user ids: one a line, or a table.")
    ] = None,
    bundles: Annotated[
        str | None,
        typer.Option(help="'all' test bundles, or a table of partial bundles with a row an item: bundle, item."),
    ] = None,
    k: Annotated[
        int | None, typer.Option("-k", "--top", min=1, help="Items for each user; 20, or all where there are fewer.")
    ] = None,
    history: Annotated[
        str,
        typer.Option(
            help="'test' hides each user's test item, as evaluate does; 'all' serves with everything known; a file of "
            "interactions, in any format that train reads, serves its users by these histories instead."
        ),
    ] = "test",
    exclude_seen: Annotated[
        bool | None,
        typer.Option(
            "--exclude-seen/--keep-seen", help="Leave out items of the history, or not; by default as evaluate does."
        ),
    ] = None,
    on_unsupported: Annotated[
        Literal["raise", "warn", "ignore"],
        typer.Option(help="What to do about users and items that are unknown, and users without a history."),
    ] = "raise",
    user_column: Annotated[
        str | None, typer.Option(help="A file of histories: column of the user id; detected if not given.")
    ] = None,
    item_column: Annotated[
        str | None, typer.Option(help="A file of histories: column of the item id; detected if not given.")
    ] = None,
    time_column: Annotated[
        str | None, typer.Option(help="A file of histories: column of the time; detected if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Recommend items for users, or to complete bundles; external ids in and out."""
    from graphcl.data import read_interactions
    from graphcl.pipelines import load_pipeline
    from graphcl.pipelines.bundle import BundleConstructor
    from graphcl.pipelines.ranking import RankingPipeline

    _check_suffix(out, _TABLE_SUFFIXES)
    pipeline = load_pipeline(run)
    if not isinstance(pipeline, RankingPipeline | BundleConstructor):
        raise InputError(f"a {pipeline.task} run recommends nothing", "give a run of a recommender", path=run)
    owner = "bundle" if isinstance(pipeline, BundleConstructor) else "user"
    if history not in ("test", "all"):
        refuse_options({"users": users, "bundles": bundles}, "the users are those of the file of histories")
        users = "all" if owner == "user" else None
    else:
        columns = {"user_column": user_column, "item_column": item_column, "time_column": time_column}
        refuse_options(columns, "it is of a file of histories, which --history names")
    given = {"user": users, "bundle": bundles}
    wanted = given.pop(owner)
    if wanted is None or any(other is not None for other in given.values()):
        raise InputError(
            f"a {pipeline.task} run recommends for {owner}s",
            f"give --{owner}s all, or a file, and nothing else",
            path=run,
        )
    if k is None:
        k = min(_DEFAULT_TOP, pipeline.num_items)
    elif k > pipeline.num_items:
        raise InputError(
            f"-k {k} is above the {pipeline.num_items} items of the catalogue", "give a smaller -k", path=run
        )
    with printed_warnings():
        if isinstance(pipeline, BundleConstructor):
            refuse_options({"exclude_seen": exclude_seen}, "the items of a bundle are always left out")
            partial = None if wanted == "all" else read_partial_bundles(Path(wanted))
            table = pipeline.recommend(partial, k, on_unsupported=on_unsupported)
        elif history not in ("test", "all"):
            log = read_interactions(Path(history), user=user_column, item=item_column, time=time_column)
            table = recommend_for_log(pipeline, log, k, exclude_seen=exclude_seen, on_unsupported=on_unsupported)
        else:
            ids = None if wanted == "all" else read_user_ids(Path(wanted))
            known: Literal["test", "all"] = "all" if history == "all" else "test"
            table = pipeline.recommend(ids, k, exclude_seen=exclude_seen, history=known, on_unsupported=on_unsupported)
    write_output(out, lambda path: _write_table(table, path, out.suffix))
    count = table[owner].n_unique()
    if as_json:
        print_json({"rows": table.height, f"{owner}s": count, "k": k, "out": str(out)})
        return
    typer.echo(f"wrote {table.height:,} rows for {count:,} {owner}s to {out}")


def recommend_for_log(
    pipeline: RankingPipeline,
    log: Interactions,
    k: int,
    *,
    exclude_seen: bool | None,
    on_unsupported: OnUnsupported,
) -> polars.DataFrame:
    """Recommend for users by their histories in a log, whether or not the training data knew them.

    Args:
        pipeline: a sequential recommender.
        log: the histories.
        k, exclude_seen, on_unsupported: as in :func:`recommend`.

    Returns:
        Columns user (as in the log), item, rank and score.
    """
    from graphcl.pipelines import SequentialRecommender

    if not isinstance(pipeline, SequentialRecommender):
        raise InputError(
            f"a {pipeline.task} run knows users by number, not by history", "use --history test or all, or a run of "
            "a sequential model",
        )  # fmt: skip
    sequences, ids = log.sequences(), log.item_ids.external
    histories = [ids[sequences[user]].tolist() for user in range(len(sequences))]
    found = pipeline.recommend_for_histories(histories, k, exclude_seen=exclude_seen, on_unsupported=on_unsupported)
    users = log.user_ids.to_series().gather(found["history"])
    return found.drop("history").insert_column(0, users.alias("user"))


def embed(
    run: RunFolder,
    out: Annotated[
        Path, typer.Option(help="File to write: .parquet or .npz for vectors; .parquet, .csv or .jsonl for clusters.")
    ],
    what: Annotated[
        Literal["items", "users", "bundles", "nodes", "entities", "labels", "queries", "clusters"] | None,
        typer.Option(help="Whose embeddings to write; by default items, or nodes. Or the clusters of the nodes."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write embeddings with their external ids, or the cluster of every node."""
    from graphcl.pipelines import load_pipeline
    from graphcl.pipelines.base import Clusterer

    _check_suffix(out, _TABLE_SUFFIXES if what == "clusters" else _VECTOR_SUFFIXES)
    pipeline = load_pipeline(run)
    choices = (*pipeline.embeds, *(("clusters",) if isinstance(pipeline, Clusterer) else ()))
    chosen = what or choices[0]
    if chosen not in choices:
        raise InputError(f"a {pipeline.task} run has no {chosen}", f"use --what {' or '.join(choices)}", path=run)
    if chosen == "clusters" and isinstance(pipeline, Clusterer):
        table = pipeline.predict()
        write_output(out, lambda path: _write_table(table, path, out.suffix))
        written = {"rows": table.height, "clusters": table["cluster"].n_unique()}
        line = f"wrote {table.height:,} nodes in {written['clusters']:,} clusters to {out}"
    else:
        embedding = pipeline.embed(chosen)
        write_output(out, lambda path: _write_embedding(embedding.ids, embedding.vectors, path, out.suffix))
        rows, width = embedding.vectors.shape
        written = {"rows": rows, "width": width}
        line = f"wrote {rows:,} {chosen} x {width} to {out}"
    if as_json:
        print_json({**written, "what": chosen, "out": str(out)})
        return
    typer.echo(line)


def score(
    run: RunFolder,
    data: Annotated[Path, typer.Option(help="CSV or TSV of events, of any size, with the entity columns of the run.")],
    out: Annotated[Path, typer.Option(help="CSV to write: the entities, score (high is unusual) and unseen entities.")],
    chunk: Annotated[int, typer.Option(min=1, help="Rows at a time.")] = 100_000,
    as_json: Json = False,
) -> None:
    """Score events by a run of a model of events; rows go through in chunks."""
    from graphcl.pipelines import load_pipeline
    from graphcl.pipelines.events import EventScorer
    from graphcl.pipelines.runs import make_folder

    _check_suffix(out, (".csv",))
    pipeline = load_pipeline(run)
    if not isinstance(pipeline, EventScorer):
        raise InputError(f"a {pipeline.task} run scores no events", "give a run of ape", path=run)
    make_folder(out.parent)
    rows = pipeline.score_file(data, out, chunk=chunk)
    if as_json:
        print_json({"rows": rows, "out": str(out)})
        return
    typer.echo(f"wrote {rows:,} scored events to {out}")


def retrieve(
    run: RunFolder,
    queries: Annotated[
        Path,
        typer.Option(
            help="Features of the queries: rows of feature:value below a header, or .npy. Or their texts: a table."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write: .parquet, .csv or .jsonl.")],
    k: Annotated[
        int | None, typer.Option("-k", "--top", min=1, help="Labels for each query; 20, or all where there are fewer.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Column of text, where the queries are a table of texts.")] = None,
    as_json: Json = False,
) -> None:
    """Retrieve the best labels of queries by a run of a dual encoder; the run folder also holds its index."""
    from graphcl.data import read_query_features, read_query_texts
    from graphcl.data.retrieval import Features
    from graphcl.data.retrieval_texts import is_text_table
    from graphcl.pipelines import load_pipeline
    from graphcl.pipelines.retrieval import Retriever

    _check_suffix(out, _TABLE_SUFFIXES)
    pipeline = load_pipeline(run)
    if not isinstance(pipeline, Retriever):
        raise InputError(f"a {pipeline.task} run retrieves no labels", "give a run of dual_encoder", path=run)
    if is_text_table(queries):
        given: Features | list[str] = read_query_texts(queries, text=text)
    else:
        refuse_options({"text": text}, "the queries are features, not a table of texts")
        given = read_query_features(queries)
    table = pipeline.retrieve(given, k or min(_DEFAULT_TOP, pipeline.num_labels))
    write_output(out, lambda path: _write_table(table, path, out.suffix))
    count = table["query"].n_unique()
    if as_json:
        print_json({"rows": table.height, "queries": count, "out": str(out)})
        return
    typer.echo(f"wrote {table.height:,} labels for {count:,} queries to {out}")


def report(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="HTML file; RUN/report.html by default.")] = None,
) -> None:
    """Write the report of a run: one self-contained HTML file."""
    from graphcl.report import write_report

    typer.echo(f"report: {write_report(run, out)}")


def read_partial_bundles(path: Path) -> dict[Any, list[Any]]:
    """Read partial bundles: a table with a row an item, columns bundle and item."""
    from graphcl.data import read_bundle_table

    table = read_bundle_table(path)
    bundles: dict[Any, list[Any]] = {}
    names, items = table.user_ids.external[table.user].tolist(), table.item_ids.external[table.item].tolist()
    for name, item in zip(names, items, strict=True):
        bundles.setdefault(name, []).append(item)
    return bundles


def read_user_ids(path: Path) -> list[Any]:
    """Read external user ids: any table with a user column that the readers know, or plain text with one id a line."""
    from graphcl.data import read_features
    from graphcl.data.readers import existing_file
    from graphcl.data.text_table import check_utf8

    path = existing_file(path)
    if path.suffix.lower() in _USER_TABLES:
        try:
            table = read_features(path, "user")
        except InputError as error:
            if error.column is None or error.row is not None:
                raise
            raise InputError(
                "no user column was recognised", "name the column 'user', or write one id a line into a .txt file",
                path=path,
            ) from error  # fmt: skip
        return table.to_series(0).unique(maintain_order=True).to_list()
    check_utf8(path)
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise InputError("holds no user id", "write one user id a line", path=path)
    return list(dict.fromkeys(ids))


def _check_suffix(out: Path, allowed: tuple[str, ...]) -> None:
    if out.suffix not in allowed:
        raise InputError(f"unknown file type {out.suffix!r}", f"end --out in one of {', '.join(allowed)}", path=out)


def _write_table(table: polars.DataFrame, path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        table.write_parquet(path)
    elif suffix == ".csv":
        table.write_csv(path)
    else:
        table.write_ndjson(path)


def _write_embedding(ids: object, vectors: object, path: Path, suffix: str) -> None:
    import numpy
    import polars

    vectors = numpy.asarray(vectors)
    if suffix == ".npz":
        with path.open("wb") as file:
            numpy.savez(file, ids=numpy.asarray(ids), vectors=vectors)
        return
    width = vectors.shape[1]
    columns = polars.Series("vector", vectors, dtype=polars.Array(polars.Float32, width))
    polars.DataFrame([polars.Series("id", numpy.asarray(ids)), columns]).write_parquet(path)
