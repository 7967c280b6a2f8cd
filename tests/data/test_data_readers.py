from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from graphcl.data import Interactions, read_features, read_interactions
from graphcl.errors import InputError

ROWS = [("ann", "x", 3, 1.0), ("bob", "y", 1, 2.0), ("ann", "z", 2, 3.0), ("bob", "x", 1, 4.0)]


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def external(log: Interactions) -> list[tuple[Any, ...]]:
    columns = [log.user_ids.to_external(log.user).tolist(), log.item_ids.to_external(log.item).tolist()]
    columns += [array.tolist() for array in (log.time, log.value) if array is not None]
    return list(zip(*columns, strict=True))


def delimited(delimiter: str, header: str = "user_id,itemID,Timestamp,rating") -> str:
    lines = [header.replace(",", delimiter)] + [delimiter.join(map(str, row)) for row in ROWS]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt"])
def test_delimiter_and_columns_are_detected(tmp_path: Path, delimiter: str, suffix: str) -> None:
    log = read_interactions(write(tmp_path, f"log{suffix}", delimited(delimiter)))
    assert external(log) == ROWS
    assert log.report.columns == {"user": "user_id", "item": "itemID", "time": "Timestamp", "value": "rating"}
    assert (log.report.format, log.report.rows_read, log.report.rows_kept) == ("csv", 4, 4)
    assert log.time is not None
    assert log.time.dtype == np.int64


def test_every_format_gives_the_same_log(tmp_path: Path) -> None:
    frame = pl.DataFrame(ROWS, schema=["user", "item", "time", "rating"], orient="row")
    frame.write_parquet(tmp_path / "log.parquet")
    frame.write_ndjson(tmp_path / "log.jsonl")
    frame.write_csv(tmp_path / "log.csv")
    frame.rename(
        {"user": "user:token", "item": "item:token", "time": "time:float", "rating": "rating:float"}
    ).write_csv(tmp_path / "log.inter", separator="\t")
    sources: list[Any] = [tmp_path / f"log.{suffix}" for suffix in ("parquet", "jsonl", "csv", "inter")]
    sources += [frame, frame.lazy(), pd.DataFrame(frame.to_dict(as_series=False)), frame.to_arrow()]
    logs = [read_interactions(source) for source in sources]
    assert [external(log) for log in logs] == [ROWS] * len(logs)
    assert len({log.content_hash() for log in logs}) == 1
    assert Interactions.from_frame(frame).content_hash() == logs[0].content_hash()


def test_given_columns_win_over_detected_ones(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "user,item,buyer,thing\n1,2,8,9\n3,4,7,6\n")
    assert external(read_interactions(path, user="buyer", item="thing")) == [(8, 9), (7, 6)]


def test_a_choice_among_candidates_is_noted(tmp_path: Path) -> None:
    log = read_interactions(write(tmp_path, "log.csv", "session_id,user_id,item\n1,2,3\n1,4,3\n"))
    assert log.report.columns["user"] == "user_id"
    assert log.report.notes == ("column 'user_id' was taken as the user; 'session_id' could be meant too",)


def test_table_without_header(tmp_path: Path) -> None:
    path = write(tmp_path, "u.data", "196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    log = read_interactions(path, column_names=["user", "item", "rating", "time"])
    assert external(log) == [(196, 242, 881250949, 3.0), (186, 302, 891717742, 3.0)]
    with pytest.raises(InputError, match=r"lines have 4 fields each.*give column_names="):
        read_interactions(path)
    with pytest.raises(InputError, match=r"row 1: the first line looks like data.*column_names="):
        read_interactions(path, format="csv")


def test_quotes_blank_lines_and_byte_order_mark(tmp_path: Path) -> None:
    text = '\ufeff"user","item"\r\n"a","x,1"\r\n\r\nb,"two\r\nlines"\r\nc,"say ""hi"""\r\n'
    log = read_interactions(write(tmp_path, "log.csv", text))
    assert external(log) == [("a", "x,1"), ("b", "two\r\nlines"), ("c", 'say "hi"')]
    assert [(d.reason, d.count, d.rows) for d in log.report.dropped] == [("blank line", 1, (3,))]
    assert log.report.rows_read == 4


def test_row_numbers_count_lines_inside_quotes(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", 'user,item,time\n1,"a\nb",1\n2,c,x\n3,d,4\n')
    with pytest.raises(InputError, match=r"log.csv, row 4, column 'time': time 'x' is not a number or an ISO date"):
        read_interactions(path)


def test_quotes_inside_fields_are_letters(tmp_path: Path) -> None:
    log = read_interactions(write(tmp_path, "log.tsv", 'user\titem\na\t5" pipe\nb\t"big" pipe\n'))
    assert external(log) == [("a", '5" pipe'), ("b", '"big" pipe')]


def test_sequences_and_pairs(tmp_path: Path) -> None:
    sequences = read_interactions(write(tmp_path, "sequences.txt", "1 5 3 5\n2 3\n\n10 7 8\n"))
    pairs = read_interactions(write(tmp_path, "pairs.txt", "1 5\n2 3\n1 3\n10 7\n1 5\n10 8\n"))
    assert (sequences.report.format, pairs.report.format) == ("sequences", "pairs")
    assert sequences.user_ids.external.tolist() == [1, 2, 10]
    for log in (sequences, pairs):
        items = log.item_ids.to_external(log.sequences().items).tolist()
        assert items == [5, 3, 5, 3, 7, 8]
        assert log.sequences().offsets.tolist() == [0, 3, 4, 6]
        assert log.report.repeated_pairs == 1
        assert log.report.identical_rows == 0
    assert sequences.report.dropped[0].rows == (3,)


def test_sequence_lines_that_continue_a_user_are_noted(tmp_path: Path) -> None:
    log = read_interactions(write(tmp_path, "log.txt", "a x y\nb x\na z w v\n"))
    assert log.report.notes == ("1 lines continue a user of an earlier line",)
    assert log.sequences().lengths.tolist() == [5, 1]


def test_a_table_of_words_above_numbers_has_a_header(tmp_path: Path) -> None:
    path = write(tmp_path, "log.txt", "buyer\tthing\n1\t2\n3\t4\n")
    assert external(read_interactions(path, user="buyer", item="thing")) == [(1, 2), (3, 4)]
    with pytest.raises(InputError, match="no user column was recognised"):
        read_interactions(path)


def test_broken_sequence_lines_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, "log.txt", "1 5 3\n2\n3 4 5\n")
    with pytest.raises(InputError, match=r"row 2: a user without an item: '2'"):
        read_interactions(path)
    log = read_interactions(path, on_bad_rows="drop")
    assert (log.num_interactions, log.report.dropped[0].rows) == (4, (2,))
    with pytest.raises(InputError, match=r"row 1: not a pair of user and item: '1 5 3'"):
        read_interactions(path, format="pairs")


def test_atomic_files_bring_their_features(tmp_path: Path) -> None:
    path = write(tmp_path, "shop.inter", 'user_id:token\titem_id:token\n1\t"a\n2\tb"\n2\tc\n')
    write(tmp_path, "shop.item", 'title:token_seq\titem_id:token\tprice:float\nRed "Cup\t"a\t2.5\nDish\tzz\t\n')
    write(tmp_path, "shop.user", "user_id:token\tage:float\n2\t30\n1\t40\n")
    log = read_interactions(path)
    assert log.item_ids.external.tolist() == ['"a', 'b"', "c"]
    assert log.item_features is not None
    assert log.item_features.to_dicts() == [{"item_id": '"a', "title": ["Red", '"Cup'], "price": 2.5}]
    assert log.user_features is not None
    assert log.user_features.rows() == [(2, 30.0), (1, 40.0)]
    assert log.report.unknown_feature_ids == {"user": 0, "item": 1}
    assert read_interactions(path, item_features=False, user_features=False).item_features is None


def test_features_from_other_files(tmp_path: Path) -> None:
    lists = write(tmp_path, "item2attributes.json", json.dumps({"4": [1, 2], "3": []}))
    assert read_features(lists, "item").rows() == [(4, [1, 2]), (3, [])]
    table = write(tmp_path, "items.csv", "price,item_id\n2.5,7\n")
    assert read_features(table, "item").columns == ["item_id", "price"]
    frame = pl.DataFrame({"key": [1], "name": ["x"]})
    assert read_features(frame, "user", key="key").columns == ["key", "name"]
    with pytest.raises(InputError, match="no item column was recognised; the columns are 'key', 'name'"):
        read_features(frame, "item")
    with pytest.raises(InputError, match=r"row 3, column 'item': item id is missing"):
        read_features(write(tmp_path, "holes.csv", "item,price\n1,2\n,3\n"), "item")
    with pytest.raises(InputError, match="feature id 1 occurs twice"):
        Interactions.from_arrays([1], [1], item_features=pl.DataFrame({"item": [1, 1]}))
    with pytest.raises(InputError, match="no JSON object from ids to lists"):
        read_features(write(tmp_path, "bad.json", "[1]"), "item")
    with pytest.raises(InputError, match="row 1: malformed JSON"):
        read_features(write(tmp_path, "bad.json", "{"), "item")


def test_items_that_only_features_name_join_the_catalogue_when_asked_for() -> None:
    log = pl.DataFrame({"user": [1, 1, 2], "item": [30, 10, 30]})
    items = pl.DataFrame({"item": [20, 30, 40], "kind": ["a", "b", "c"]})
    closed = read_interactions(log, item_features=items)
    assert closed.item_ids.to_series().to_list() == [10, 30]
    assert closed.report.unknown_feature_ids == {"item": 2}
    whole = read_interactions(log, item_features=items, catalogue="features")
    assert whole.item_ids.to_series().to_list() == [10, 20, 30, 40]
    assert whole.item_ids.to_external(whole.item).tolist() == [30, 10, 30]
    assert whole.item_features is not None
    assert whole.item_features["item"].to_list() == [20, 30, 40]
    with pytest.raises(InputError, match="catalogue=features needs a table of items"):
        read_interactions(log, catalogue="features")
    with pytest.raises(InputError, match="keyed by String ids, the interactions by Int64"):
        read_interactions(log, item_features=pl.DataFrame({"item": ["x"], "kind": ["a"]}), catalogue="features")
    with pytest.raises(ValueError, match="catalogue must be one of"):
        read_interactions(log, item_features=items, catalogue="all")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["3", "1"], [3, 1]),
        (["1.5", "2"], [1.5, 2.0]),
        (["1e3", "2"], [1000, 2]),
        (["1970-01-01 00:01:00", "1970-01-02"], [60, 86400]),
        (["1970-01-01T00:01:00Z", "1970-01-01T01:00:00+01:00"], [60, 0]),
        (["1970-01-01T00:00:00.250000", "1970-01-01 00:01"], [0.25, 60.0]),
    ],
)
def test_times_are_numbers_or_iso_dates(tmp_path: Path, texts: list[str], expected: list[float]) -> None:
    body = "".join(f"{row},7,{text}\n" for row, text in enumerate(texts))
    log = read_interactions(write(tmp_path, "log.csv", "user,item,time\n" + body))
    assert log.time is not None
    assert log.time.tolist() == expected


def test_typed_datetimes() -> None:
    times = pd.to_datetime(["1970-01-01 00:01:00", "1970-01-01 00:00:02"])
    frame = pd.DataFrame({"user": [1, 2], "item": [3, 3], "date": times})
    log = read_interactions(frame)
    assert log.time is not None
    assert log.time.tolist() == [60, 2]
    from_array = Interactions.from_arrays([1, 2], [3, 3], time=times.to_numpy())
    assert from_array.time is not None
    assert from_array.time.tolist() == [60, 2]


BAD_CSV = [
    ("user,item,time\n1,2,3\n1,2,NaN\n", r"row 3, column 'time': time 'NaN' is not a number or an ISO date; "),
    ("user,item,time\n1,2,3\n1,2,inf\n", r"row 3, column 'time'"),
    ("user,item,time\n1,2,3\n1,2,\n", r"row 3, column 'time': time is missing; fill it in or drop the row"),
    ("user,item,time\n1,2,2020-01-01\n1,2,2020-13-01\n", r"row 3, column 'time': time '2020-13-01' is not"),
    ("user,item\n1,2\n-3,2\n", r"row 3, column 'user': negative user id -3; number ids from 0"),
    ("user,item\n1,-1\n3,2\n", r"row 2, column 'item': negative item id -1"),
    ("user,item\n1,2\n,2\n", r"row 3, column 'user': user id is missing"),
    ("user,item,note\n1,2,a\n1,2\n", r"row 3: 2 fields where 3 are expected"),
    ("user,item\n1,2\n1,2,3\n", r"row 3: 3 fields where 2 are expected"),
    ("user,item,rating\n1,2,x\n1,2,3\n1,2,3\n", r"row 2, column 'rating': value 'x' is not a number"),
    ("user,item\n", r"holds a header and no row"),
    ("user,item\n\n\n", r"holds a header and no row"),
    ("", r"the file is empty; give a file with at least one row"),
    ("\n \n", r"the file is empty"),
    (
        "usr,item\n1,2\n",
        r"column 'user': no user column was recognised; the columns are 'usr', 'item'; did you mean 'usr'",
    ),
    ("user,item_no\n1,2\n", r"column 'item': no item column.*did you mean 'item_no'\?"),
]


@pytest.mark.parametrize(("text", "message"), BAD_CSV)
def test_bad_tables_name_place_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, "log.csv", text)
    with pytest.raises(InputError, match=message) as caught:
        read_interactions(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_given_column_that_is_missing_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "buyer,item\n1,2\n")
    with pytest.raises(
        InputError, match=r"column 'buyr': there is no such column; the columns are 'buyer', 'item'; did"
    ):
        read_interactions(path, user="buyr")
    with pytest.raises(InputError, match="two roles"):
        read_interactions(path, user="item", item="item")


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", b"user,item\n1,caf\xc3\xa9\n2,caf\xe9\n")
    with pytest.raises(InputError, match=r"row 3: byte 23 \(0xe9\) is not UTF-8 text; save the file as UTF-8"):
        read_interactions(path)
    with pytest.raises(InputError, match=r"row 1: byte 0 \(0xff\)"):
        read_interactions(write(tmp_path, "log.txt", "user,item".encode("utf-16")))


def test_bad_rows_can_be_dropped_and_are_accounted_for(tmp_path: Path) -> None:
    text = "user,item,time\n1,2,3\n,2,3\n-1,2,3\n1,2,x\n\n1,2\n2,2,9\n1,2,3\n"
    log = read_interactions(write(tmp_path, "log.csv", text), on_bad_rows="drop", duplicates="first")
    assert external(log) == [(1, 2, 3), (2, 2, 9)]
    assert [(d.reason, d.count, d.rows) for d in log.report.dropped] == [
        ("blank line", 1, (6,)),
        ("wrong number of fields", 1, (7,)),
        ("missing user id", 1, (3,)),
        ("negative user id", 1, (4,)),
        ("time is not a number or an ISO date", 1, (5,)),
        ("same user, item, time and value as another row", 1, (9,)),
    ]
    assert log.report.rows_read == log.report.rows_kept + log.report.rows_dropped == 8


def test_duplicates_are_reported_and_kept_by_default(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "user,item,time\n1,2,3\n1,2,3\n1,2,4\n1,3,4\n")
    log = read_interactions(path)
    assert (log.num_interactions, log.report.identical_rows, log.report.repeated_pairs) == (4, 1, 2)
    assert [d.rows for d in read_interactions(path, duplicates="first").report.dropped] == [(3,)]
    assert [d.rows for d in read_interactions(path, duplicates="last").report.dropped] == [(2,)]


def test_values_below_a_bound_are_dropped(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "user,item,rating\n1,2,3\n1,3,5\n2,3,4\n")
    log = read_interactions(path, min_value=4)
    assert external(log) == [(1, 3, 5.0), (2, 3, 4.0)]
    assert log.report.dropped[0].reason == "value below 4"
    with pytest.raises(InputError, match="no row is left: 3 x value below 9"):
        read_interactions(path, min_value=9)
    with pytest.raises(InputError, match="no value column to filter"):
        read_interactions(pl.DataFrame({"user": [1], "item": [2]}), min_value=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"user": 1, "item": 2}\n\n{"user": 1,\n', r"log.jsonl, row 3: malformed JSON: .* at character"),
        ('{"user": 1, "item": 2}\n[1, 2]\n', r"row 2: malformed JSON: list where an object is expected"),
        ('{"user": 1, "item": 2}\n\n{"user": 3}\n', r"row 3, column 'item': item id is missing"),
        ('{"user": 1, "thing": 2}\n', r"no item column was recognised; the columns are 'user', 'thing'"),
    ],
)
def test_bad_json_lines(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_interactions(write(tmp_path, "log.jsonl", text))


def test_malformed_json_lines_can_be_dropped(tmp_path: Path) -> None:
    text = '{"user": 1, "item": 2}\n{"user":\n{"user": -3, "item": 2}\n{"user": 3, "item": 2}\n'
    log = read_interactions(write(tmp_path, "log.jsonl", text), on_bad_rows="drop")
    assert external(log) == [(1, 2), (3, 2)]
    assert [(d.reason, d.rows) for d in log.report.dropped] == [("malformed JSON", (2,)), ("negative user id", (3,))]


def test_paths_and_formats_that_cannot_be(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "user,item\n1,2\n")
    with pytest.raises(InputError, match=r"lgo.csv: there is no such file; did you mean 'log.csv'\?"):
        read_interactions(tmp_path / "lgo.csv")
    with pytest.raises(InputError, match="this is a folder"):
        read_interactions(tmp_path)
    with pytest.raises(InputError, match=r"the format of a \.xlsx file is unknown; use one of"):
        read_interactions(write(tmp_path, "log.xlsx", "x"))
    with pytest.raises(InputError, match=r"format 'jsonlines' is unknown; did you mean 'jsonl'\?"):
        read_interactions(path, format="jsonlines")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no readable Parquet file"):
        read_interactions(write(tmp_path, "log.parquet", "x"))
    with pytest.raises(InputError, match="interactions cannot be read from dict"):
        read_interactions({"user": [1]})
    with pytest.raises(InputError, match="delimiter '::' is not one ASCII character"):
        read_interactions(path, delimiter="::")
    with pytest.raises(ValueError, match="on_bad_rows must be one of"):
        read_interactions(path, on_bad_rows="ignore")  # type: ignore[arg-type]


def test_ids_in_text_files_keep_their_identity(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", f"user,item\n007,{2**64 - 1}\n7,{2**63}\n")
    log = read_interactions(path)
    assert log.user_ids.external.tolist() == ["007", "7"]
    assert log.item_ids.external.tolist() == [2**63, 2**64 - 1]
    huge = read_interactions(write(tmp_path, "huge.csv", f"user,item\n1,{2**70}\n2,3\n"))
    assert huge.item_ids.external.tolist() == [str(2**70), "3"]
    lines = read_interactions(write(tmp_path, "huge.jsonl", f'{{"user": 1, "item": {2**63}}}\n'))
    assert lines.item_ids.external.tolist() == [2**63]


def test_text_ids_of_typed_sources_stay_text() -> None:
    log = read_interactions(pd.DataFrame({"user": ["10", "9"], "item": [1.0, 2.0]}))
    assert log.user_ids.external.tolist() == ["10", "9"]
    assert log.item_ids.external.tolist() == [1, 2]
    with pytest.raises(InputError, match=r"row 2, column 'item': item id is missing"):
        read_interactions(pd.DataFrame({"user": ["10", "9"], "item": [1.0, None]}))
    with pytest.raises(InputError, match=r"column 'item': id 1.5 is not a whole number"):
        read_interactions(pd.DataFrame({"user": ["10"], "item": [1.5]}))


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_chunks_of_the_byte_scan_do_not_matter(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphcl.data.text_table._CHUNK", chunk)
    text = 'user,item\n"a","é,\n1"\n\nb,"say ""hi"""\nc,d\n'
    log = read_interactions(write(tmp_path, "log.csv", text))
    assert external(log) == [("a", "é,\n1"), ("b", 'say "hi"'), ("c", "d")]
    with pytest.raises(InputError, match=r"row 2: byte 8 \(0xc3\)"):
        read_interactions(write(tmp_path, "bad.csv", b"sr,item\n\xc3,1\n"))


def test_ids_of_a_feature_table_keep_their_zeros(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\n007,a\n008,b\n007,b\n")
    (tmp_path / "ages.csv").write_text("user,age\n007,40\n008,50\n")
    log = read_interactions(tmp_path / "log.csv", user_features=tmp_path / "ages.csv")
    assert log.user_features is not None
    assert log.user_features.rows() == [("007", 40), ("008", 50)]
    assert read_features(tmp_path / "ages.csv", "user")["age"].to_list() == [40, 50]
