"""Readers for the text formats of public click sets, one function a format.

Each takes a path, the number of data lines to read at most, and the report to fill.
"""

from array import array
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from model.clicks import ReadReport, data_lines, first_seen, group_clicks, repeats
from model.errors import DataError
from model.histories import Histories, ItemId

MIND_TIME = "%m/%d/%Y %I:%M:%S %p"


def read_msnbc(path: Path, limit: int | None, report: ReadReport) -> Histories:
    """UCI "MSNBC.com Anonymous Web Data": a visitor a line, a section number a view.

    The header names the sections in number order; they are the catalogue. A visitor's id is
    the number of the line among the lines with data, from 1, so a broken line leaves a gap.
    """
    sections: list[ItemId] = []
    number_of: dict[str, int] = {}
    visitors: list[int] = []
    items, offsets = array("i"), array("q", [0])
    for number, line in data_lines(path, limit, report, comment="%"):
        if not number_of:
            sections, number_of = list(line.split()), section_numbers(path, number, line)
            report.rows -= 1  # that was the header
            continue
        try:
            items.extend([number_of[section] for section in line.split()])
        except KeyError as error:
            names = f"1 to {len(sections)}"
            report.reject(number, f"{error.args[0]!r} is no section number, {names}")
            continue
        visitors.append(report.rows)
        offsets.append(len(items))
    return Histories(visitors, sections, np.array(items, np.int32), np.array(offsets, np.int64))


def section_numbers(path: Path, number: int, line: str) -> dict[str, int]:
    """Index of each section by the number that stands for it in the file."""
    if line[0].isdigit():
        raise DataError(f"{path}: line {number} has views before the header with section names")
    return {str(n): n - 1 for n in range(1, len(line.split()) + 1)}


def read_sasrec(path: Path, limit: int | None, report: ReadReport) -> Histories:
    """`user item` a line, integers, each user's oldest click first (Kang and McAuley 2018)."""
    users, items = array("q"), array("q")
    for number, line in data_lines(path, limit, report):
        try:
            user, item = map(int, line.split())
            users.append(user)
            items.append(item)
        except (ValueError, OverflowError):
            del users[len(items) :]
            report.reject(number, f"{shown(line)} is not two integers, user and item")
    return group_clicks(first_seen(users), first_seen(items), None)


def read_wikispeedia(path: Path, limit: int | None, report: ReadReport) -> Histories:
    """Wikispeedia paths, finished or not: a visitor's paths joined in time order.

    Titles are unquoted, with spaces for underscores. A path is the sequence of articles on
    the screen, see `articles_on_screen` for the back click.
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
    report.repeated_rows = repeats(seen)
    return group_clicks(first_seen(users), first_seen(items), np.array(times, np.int64))


def wikispeedia_fields(line: str) -> tuple[str, int, str]:
    """Visitor, unix time in seconds, and path of a line."""
    fields = line.split("\t")
    if len(fields) not in (5, 6):  # 6 in the unfinished paths, 5 in the finished ones
        raise ValueError(f"{len(fields)} fields, not 5 or 6")
    if not fields[0]:
        raise ValueError("no visitor")
    if not fields[1].isdecimal():
        raise ValueError(f"time {shown(fields[1])} is not in unix seconds")
    return fields[0], int(fields[1]), fields[3]


def articles_on_screen(path: list[str]) -> list[str]:
    """Titles in the order in which the player saw them.

    A back click `<` leaves the open article for the one that it was reached from, and that
    return counts as a click on the article returned to: `A;B;<;C` reads A, B, A, C. So every
    click follows a link of the article before it, or returns.

    Raises:
        ValueError: a back click with nothing to return to, or an empty or misspelt title.
    """
    way: list[str] = []
    articles = []
    for click in path:
        if click == "<":
            if len(way) < 2:
                raise ValueError("back click on the first article")
            way.pop()
        elif not click:
            raise ValueError("empty title")
        else:
            way.append(unquote(click, errors="strict").replace("_", " "))
        articles.append(way[-1])
    return articles


def read_mind(path: Path, limit: int | None, report: ReadReport) -> Histories:
    """MIND `behaviors.tsv`: the user's history, then what it clicked in the impressions.

    The history is that of the user's newest impression. The clicks (`-1`) of every impression
    that shows this same history follow in time order: where an earlier impression shows a
    shorter history, its clicks are in the newest one already.
    """
    impressions: list[tuple[str, datetime, str, list[str]]] = []
    seen: list[str] = []
    for number, line in data_lines(path, limit, report):
        try:
            impressions.append(impression(line))
        except ValueError as error:
            report.reject(number, str(error))
            continue
        seen.append(line)
    report.repeated_rows = repeats(seen)
    by_user: dict[str, list[tuple[datetime, str, list[str]]]] = {}
    for user, time, history, clicked in impressions:
        by_user.setdefault(user, []).append((time, history, clicked))
    clicks = {user: clicks_of(shown_to_user) for user, shown_to_user in by_user.items()}
    lengths = np.array([len(row) for row in clicks.values()], np.int64)
    users: list[ItemId] = list(clicks)
    items = first_seen(item for row in clicks.values() for item in row)
    return group_clicks((np.repeat(np.arange(len(users)), lengths), users), items, None)


def impression(line: str) -> tuple[str, datetime, str, list[str]]:
    """User, time, history and clicked news of a line."""
    fields = line.split("\t")
    if len(fields) != 5:
        raise ValueError(f"{len(fields)} fields, not 5")
    if not fields[1]:
        raise ValueError("no user")
    shown_news = [news.rpartition("-") for news in fields[4].split()]
    for news, _, clicked in shown_news:
        if not news or clicked not in ("0", "1"):
            raise ValueError(f"impression {shown(news + '-' + clicked)} does not end in -0 or -1")
    clicks = [news for news, _, clicked in shown_news if clicked == "1"]
    return fields[1], datetime.strptime(fields[2], MIND_TIME), fields[3], clicks


def clicks_of(impressions: list[tuple[datetime, str, list[str]]]) -> list[str]:
    """All clicks of one user, oldest first."""
    impressions = sorted(impressions, key=lambda row: row[0])
    newest = impressions[-1][1]
    clicks = newest.split()
    for _, history, clicked in impressions:
        if history == newest:
            clicks += clicked
    return clicks


def shown(text: str) -> str:
    """The text as an error message shows it, cut short."""
    return repr(text if len(text) <= 60 else text[:60] + "...")
