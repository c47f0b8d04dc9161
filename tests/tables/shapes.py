"""Small files in the shapes of public sets, and what each holds when it is read right."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from persona.contract import ItemId

Histories = dict[ItemId, list[ItemId]]


@dataclass(frozen=True)
class Shape:
    """A file, and its histories by user id; by number from 1 where there are no ids."""

    name: str
    write: Callable[[Path], object]
    histories: Histories


def _text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


def _amazon(path: Path) -> None:
    """Reviews as Amazon's 5-core sets of 2014 have them: JSON lines under `.json`."""
    rows = [("A2", "B001", 1400000000), ("A1", "B002", 1390000000), ("A2", "0007", 1380000000)]
    reviews = [
        {
            "reviewerID": user,
            "asin": item,
            "helpful": [2, 3],
            "reviewText": 'A "good" one, really',
            "overall": 5.0,
            "unixReviewTime": time,
            "reviewTime": "09 13, 2009",
        }
        for user, item, time in rows
    ]
    path.write_text("\n".join(map(json.dumps, reviews)))


def _parquet_folder(path: Path) -> None:
    path.mkdir()
    (path / "_SUCCESS").touch()
    for number, rows in enumerate(([(7, "b", 2), (8, "c", 1)], [(7, "a", 1)])):
        user, item, time = zip(*rows, strict=True)
        columns = {"user_id": user, "item_id": item, "ts": pa.array(time, pa.timestamp("s"))}
        pq.write_table(pa.table(columns), path / f"part-{number}.parquet")


SHAPES = [
    Shape(
        "MovieLens with two colons.dat",
        _text(
            "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978301968\n1::914::3::978301000\n"
        ),
        {1: [1193, 914, 661], 2: [1193]},
    ),
    Shape(
        "RetailRocket events.csv",
        _text(
            "timestamp,visitorid,event,itemid,transactionid\n"
            "1433221332117,257597,view,355908,\n"
            "1433224214164,992329,view,248676,\n"
            "1433221999827,111016,addtocart,318965,\n"
            "1433221955914,257597,view,9877,\n"
        ),
        {257597: [355908, 9877], 992329: [248676]},
    ),
    Shape(
        "Yoochoose without header.dat",
        _text(
            "1,2014-04-07T10:54:09.868Z,214536500,0\n"
            "1,2014-04-07T10:51:09.277Z,214536502,0\n"
            "2,2014-04-07T13:56:37.614Z,214662742,S\n"
        ),
        {1: [214536502, 214536500], 2: [214662742]},
    ),
    Shape(
        "Diginetica with semicolons.csv",
        _text(
            "sessionId;userId;itemId;timeframe;eventdate\n"
            "1;NA;81766;526309;2016-05-09\n1;NA;31331;1031018;2016-05-09\n2;5;32118;243569;2016-05-09\n"
        ),
        {1: [81766, 31331], 2: [32118]},
    ),
    Shape("Amazon reviews.json", _amazon, {"A1": ["B002"], "A2": ["0007", "B001"]}),
    Shape(
        "RecBole.inter",
        _text(
            "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
            "196\t242\t3\t881250949\n196\t302\t3\t881250000\n22\t377\t1\t878887116\n"
        ),
        {22: [377], 196: [302, 242]},
    ),
    Shape(
        "Last.fm.tsv",
        _text(
            'user_000001\t2009-05-04T23:08:57Z\tf1b1cf71\tDeep Dish\t\tFuck, 7" mix\n'
            'user_000001\t2009-05-04T13:54:10Z\ta7f7df4a\t"Weird Al" Yankovic\t\tEat It\n'
            "user_000002\t2009-05-04T13:06:09Z\ta7f7df4a\t坂本龍一\t\tBibo No Aozora\n"
        ),
        {"user_000001": ["a7f7df4a", "f1b1cf71"], "user_000002": ["a7f7df4a"]},
    ),
    Shape(
        "packed.csv.gz",
        lambda path: path.write_bytes(gzip.compress(b"user,item,time\nann,b,2\nann,a,1\n")),
        {"ann": ["a", "b"]},
    ),
    Shape("folder of Parquet", _parquet_folder, {7: ["a", "b"], 8: ["c"]}),
    Shape(
        "a history a line.txt", _text("10 20 30\n7 8\n9\n"), {1: [10, 20, 30], 2: [7, 8], 3: [9]}
    ),
    Shape(
        "delimited strings.csv",
        _text("customer_id,item_seq\n7,1|2|3\n007,4|5\n"),
        {"7": [1, 2, 3], "007": [4, 5]},
    ),
    Shape(
        "log with an event column.jsonl",
        _text(
            "\n".join(
                json.dumps({"session_id": user, "ts": time, "event_type": event, "sku": item})
                for user, time, event, item in [
                    ("s1", "2024-01-01T10:00:02Z", "view", "c"),
                    ("s1", "2024-01-01T10:00:00Z", "view", "a"),
                    ("s1", "2024-01-01T10:00:01Z", "click", "b"),
                ]
            )
        ),
        {"s1": ["a", "c"]},
    ),
]
