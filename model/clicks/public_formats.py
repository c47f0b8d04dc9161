"""Readers for the text formats of public click sets, one function per format.

Each takes a path, the largest number of data lines to read, and the report to fill.
"""

from array import array
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from model.clicks.grouping import (
    ReadReport,
    count_repeats,
    data_lines,
    first_seen,
    group_clicks,
)
from model.clicks.histories import Histories
from model.errors import DataError
from persona.contract import ItemId

MIND_TIME = "%m/%d/%Y %I:%M:%S %p"


def read_msnbc(path: Path, limit: int | None, report: ReadReport) -> Histories:
    """UCI "MSNBC.com Anonymous Web Data": one visitor per line, one section number per view.

    The header names the sections in the order of their numbers; they are the catalogue. A
    visitor's id is the line's number among the lines with data, from 1. A broken line leaves a
    gap in the ids.
    """
    sections: list[ItemId] = []
    number_of: dict[str, int] = {}
    visitors: list[int] = []
    items, offsets = array("i"), array("q", [0])
    for number, line in data_lines(path, limit, report, comment="%"):
        if not number_of:
            sections, number_of = list(line.split()), section_numbers(path, number, line)
            report.rows -= 1  # the header is no row
            continue
        try:
            items.extend(map(number_of.__getitem__, line.split()))
        except KeyError as error:
            del items[offsets[-1] :]
            reason = f"{error.args[0]!r} is not a section number, 1 to {len(sections)}"
            report.reject(number, reason)
            continue
        visitors.append(report.rows)
        offsets.append(len(items))
    return Histories(visitors, sections, np.array(items, np.int32), np.array(offsets, np.int64))


def section_numbers(path: Path, number: int, line: str) -> dict[str, int]:
    """Index of each section by its number in the file.

    Raises:
        DataError: the line has section numbers instead of names.
    """
    if line[0].isdigit():
        raise DataError(f"{path}: line {number} has views before the header with section names")
    return {str(n): n - 1 for n in range(1, len(line.split()) + 1)}


def read_sasrec(path: Path, limit: int | None, report: ReadReport) -> Histories:
    """Lines of `user item`, integers, each user's oldest click first (Kang and McAuley 2018)."""
    users, items = array("q"), array("q")
    for number, line in data_lines(path, limit, report):
        try:
            user, item = line.split()
            users.append(int(user))
            items.append(int(item))
        except (ValueError, OverflowError):
            del users[len(items) :]
            report.reject(number, f"{quoted(line)} is not two integers, user and item")
    return group_clicks(first_seen(users), first_seen(items), None)


def read_wikispeedia(path: Path, limit: int | None, report: ReadReport) -> Histories:
    """Wikispeedia paths, finished or not: a visitor's paths are joined in time order.

    Titles are URL-decoded, with spaces for underscores. `articles_on_screen` handles back clicks.
    """
    users: list[str] = []
    items: list[str] = []
    times: list[int] = []
    seen: list[str] = []
    for number, line in data_lines(path, limit, report, comment="#"):
        try:
            visitor, time, path_text = wikispeedia_fields(line)
            articles = articles_on_screen(path_text.split(";"))
        except ValueError as error:
            report.reject(number, str(error))
            continue
        seen.append(line)
        users += [visitor] * len(articles)
        items += articles
        times += [time] * len(articles)
    report.repeated_rows = count_repeats(seen)
    return group_clicks(first_seen(users), first_seen(items), np.array(times, np.int64))


def wikispeedia_fields(line: str) -> tuple[str, int, str]:
    """Visitor, Unix time in seconds, and path of a line."""
    fields = line.split("\t")
    if len(fields) not in (5, 6):  # 6 in unfinished paths, 5 in finished ones
        raise ValueError(f"{len(fields)} fields, not 5 or 6")
    if not fields[0]:
        raise ValueError("no visitor")
    if not fields[1].isdecimal():
        raise ValueError(f"time {quoted(fields[1])} is not in Unix seconds")
    return fields[0], int(fields[1]), fields[3]


def articles_on_screen(path: list[str]) -> list[str]:
    """Titles in the order in which the player saw them.

    A back click `<` returns to the article from which the player reached the open one, and
    counts as a click on it: `A;B;<;C` reads A, B, A, C.

    Raises:
        ValueError: a back click on the first article, or an empty or wrongly encoded title.
    """
    open_articles: list[str] = []
    articles = []
    for click in path:
        if click == "<":
            if len(open_articles) < 2:
                raise ValueError("back click on the first article")
            open_articles.pop()
        elif not click:
            raise ValueError("empty title")
        else:
            open_articles.append(unquote(click, errors="strict").replace("_", " "))
        articles.append(open_articles[-1])
    return articles


def read_mind(path: Path, limit: int | None, report: ReadReport) -> Histories:
    """MIND `behaviors.tsv`: the user's history, then the user's clicks in the impressions.

    The history is the one in the user's newest impression. The clicks (`-1`) of all impressions
    with this same history follow in time order. An earlier impression has a shorter history, and
    the newest history holds its clicks already.
    """
    impressions: list[tuple[str, datetime, str, list[str]]] = []
    seen: list[str] = []
    for number, line in data_lines(path, limit, report):
        try:
            impressions.append(parse_impression(line))
        except ValueError as error:
            report.reject(number, str(error))
            continue
        seen.append(line)
    report.repeated_rows = count_repeats(seen)
    by_user: dict[str, list[tuple[datetime, str, list[str]]]] = {}
    for user, time, history, clicked in impressions:
        by_user.setdefault(user, []).append((time, history, clicked))
    clicks = {user: join_clicks(own_impressions) for user, own_impressions in by_user.items()}
    lengths = np.array([len(row) for row in clicks.values()], np.int64)
    users: list[ItemId] = list(clicks)
    items = first_seen([item for row in clicks.values() for item in row])
    return group_clicks((np.repeat(np.arange(len(users)), lengths), users), items, None)


def parse_impression(line: str) -> tuple[str, datetime, str, list[str]]:
    """User, time, history and clicked news of a line.

    Raises:
        ValueError: the line is malformed.
    """
    fields = line.split("\t")
    if len(fields) != 5:
        raise ValueError(f"{len(fields)} fields, not 5")
    if not fields[1]:
        raise ValueError("no user")
    shown_news = [news.rpartition("-") for news in fields[4].split()]
    for news, _, clicked in shown_news:
        if not news or clicked not in ("0", "1"):
            raise ValueError(f"impression {quoted(news + '-' + clicked)} does not end in -0 or -1")
    clicks = [news for news, _, clicked in shown_news if clicked == "1"]
    return fields[1], datetime.strptime(fields[2], MIND_TIME), fields[3], clicks


def join_clicks(impressions: list[tuple[datetime, str, list[str]]]) -> list[str]:
    """All clicks of one user from the user's impressions, oldest first."""
    impressions = sorted(impressions, key=lambda row: row[0])
    newest = impressions[-1][1]
    clicks = newest.split()
    for _, history, clicked in impressions:
        if history == newest:
            clicks += clicked
    return clicks


def quoted(text: str) -> str:
    """The text in quotes for a message, at most 60 characters of it."""
    return repr(text if len(text) <= 60 else text[:60] + "...")
