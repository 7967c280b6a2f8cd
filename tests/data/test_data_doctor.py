from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graphcl.data import Interactions, diagnose, synthetic_shop
from graphcl.errors import InputError


def problems(source: object, **options: Any) -> str:
    return "\n".join(warning.problem for warning in diagnose(source, **options).warnings)


def test_report_of_a_messy_file(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n1,7,1\n1,8,1\n1,9,2\n2,7,5\n2,7,5\n,7,1\n3,7,x\n2,8,6\n4,6,9\n")
    report = diagnose(path)
    assert (report.users, report.items, report.interactions) == (3, 4, 7)
    assert report.user_degrees == {"min": 1, "25%": 2, "median": 3, "75%": 3, "95%": 3, "max": 3, "mean": 7 / 3}
    assert report.item_degrees["max"] == 3
    assert report.density == pytest.approx(7 / 12)
    assert report.time_range == (1.0, 9.0)
    assert report.tied_rows == 4
    assert report.users_not_evaluable == 1
    assert report.test_items_absent_from_train == 2
    assert [(d.reason, d.rows) for d in report.read.dropped] == [
        ("missing user id", (7,)),
        ("time is not a number or an ISO date", (8,)),
    ]
    text = "\n".join(report.lines())
    for line in (
        f"source        {path} (csv)",
        "columns       user from 'user', item from 'item', time from 'time'",
        "rows          9 read, 7 kept, 2 dropped",
        "  dropped     1 x missing user id (row 7)",
        "duplicates    1 identical rows, 1 repeated user-item pairs",
        "times         1 to 9, 4 rows tie with another of their user",
        "evaluation    1 users cannot be evaluated (fewer than three rows)",
    ):
        assert line in text
    found = problems(path)
    assert "2 of 9 rows were dropped" in found
    assert "1 rows repeat another one in all columns" in found
    assert "1 users have fewer than three rows" in found
    assert "4 rows tie in time" in found
    assert "2 test items have no training row" in found


def test_report_survives_json() -> None:
    report = diagnose(Interactions.from_arrays([1, 1, 1, 2], [7, 8, 9, 7], time=[1, 2, 3, 4]))
    again = json.loads(json.dumps(report.to_dict()))
    assert again["read"]["rows_kept"] == 4
    assert again["time_range"] == [1, 4]
    assert [set(warning) for warning in again["warnings"]] == [{"problem", "remedy"}] * len(report.warnings)


def test_a_clean_log_has_no_warning() -> None:
    report = diagnose(synthetic_shop(num_users=400, num_items=60))
    assert report.warnings == ()
    assert report.users_not_evaluable == 0
    assert "times         none" not in "\n".join(report.lines())


def test_logs_that_cannot_be_evaluated() -> None:
    one = diagnose(Interactions.from_arrays([1, 1, 1], [5, 5, 5]))
    assert [warning.problem for warning in one.warnings] == ["there is one user only", "there is one item only"]
    assert one.test_items_absent_from_train is None
    assert "row order is taken as time order" in "\n".join(one.lines())
    assert "no user has three rows" in problems(Interactions.from_arrays([1, 2], [5, 6]))


def test_a_placeholder_user_stands_out() -> None:
    users = [0] * 300 + [user for user in range(1, 301) for _ in range(3)]
    assert "one user has 300 of 1200 rows" in problems(Interactions.from_arrays(users, [n % 50 for n in range(1200)]))


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        diagnose(tmp_path / "log.csv")
    path = tmp_path / "log.csv"
    path.write_text("user,item\n,1\n-1,2\n")
    with pytest.raises(InputError, match="no row is left: 1 x missing user id, 1 x negative user id"):
        diagnose(path)
